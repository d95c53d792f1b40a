package enginesim

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"
)

// Connector is which of vLLM's NIXL connectors an engine stands in for: how prompts are handed from one to another.
type Connector int

// The connectors.
const (
	// NIXL is that of v0.13 and later: blocks by KV group, the prefill engine's own request id, fields that nobody else
	// knows, and a lease of 30 s which a decode engine that has asked extends.
	NIXL Connector = iota
	// OldNIXL is that of v0.9.2: a flat list of blocks, which the request id of both legs names, kept for 480 s.
	OldNIXL
	// NoConnector hands nothing over: kv_transfer_params are ignored.
	NoConnector
)

// lease is how long blocks are kept for a decode engine.
func (c Connector) lease() time.Duration {
	if c == OldNIXL {
		return 480 * time.Second
	}
	return 30 * time.Second
}

// transfer are the fields of kv_transfer_params that a decode engine reads. The rest it must be given all the same.
type transfer struct {
	RemoteDecode  bool            `json:"do_remote_decode"`
	RemotePrefill bool            `json:"do_remote_prefill"`
	Blocks        json.RawMessage `json:"remote_block_ids"`
	EngineID      string          `json:"remote_engine_id"`
	RequestID     string          `json:"remote_request_id"`
	Host          string          `json:"remote_host"`
	Port          int             `json:"remote_port"`
}

// handed is one prompt that this engine computes for another. What is not set at once is under the engine's lock.
type handed struct {
	client string // X-Request-Id, which both legs must have
	prompt uint64 // names the prompt with all that its KV depends on
	key    string // under which the other engine asks for it

	request string // of the core
	params  []byte // as they were handed over
	lease   *time.Timer
	held    bool   // a decode engine has asked for it
	ended   string // why it is not kept any longer; empty while it is
}

// asked is what kv_transfer_params ask of this engine: to compute a prompt for another, to fetch one, or neither.
func (e *Engine) asked(a *answer, client string, answers int) error {
	raw := a.body.Transfer
	if len(raw) == 0 || string(raw) == "null" || e.o.Connector == NoConnector {
		return nil
	}
	var t transfer
	if err := json.Unmarshal(raw, &t); err != nil {
		return wrongParams("not those of this connector: " + err.Error())
	}
	switch {
	case t.RemoteDecode == t.RemotePrefill:
		return wrongParams("exactly one of do_remote_decode and do_remote_prefill must be true")
	case client == "":
		return wrongParams("a leg without X-Request-Id")
	case answers != 1:
		return wrongParams("a leg has one prompt and one answer")
	case t.RemoteDecode:
		if err := a.body.prefillLeg(); err != nil {
			return err
		}
		a.handed = &handed{client: client}
		return nil
	}
	return e.fetches(a, &t, client)
}

// fetches checks the parameters that a decode engine gets.
func (e *Engine) fetches(a *answer, t *transfer, client string) error {
	var nested [][]int
	var flat []int
	switch isFlat := json.Unmarshal(t.Blocks, &flat) == nil; {
	case t.EngineID == "" || t.Host == "" || t.Port == 0:
		return wrongParams("remote_engine_id, remote_host or remote_port is missing")
	case !isFlat && json.Unmarshal(t.Blocks, &nested) != nil:
		return wrongParams("remote_block_ids is no list of blocks")
	case e.o.Connector == OldNIXL && !isFlat:
		return &apiError{http.StatusInternalServerError, "InternalServerError", "", "remote_block_ids: a list in a list"}
	case e.o.Connector == NIXL && t.RequestID == "":
		return nil // vLLM warns and computes the prompt itself
	}
	key := t.RequestID
	if e.o.Connector == OldNIXL {
		key = a.id
	}
	a.fetch = &fetch{
		url:  "http://" + net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) + fetchPath,
		said: fetching{Engine: t.EngineID, Key: key, Client: client, Params: a.body.Transfer},
	}
	return nil
}

// prefillLeg checks all that the first leg must have, and must not have.
func (b *body) prefillLeg() error {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(b.Transfer, &fields) // it was read before
	want := map[string]string{
		"do_remote_decode": "true", "do_remote_prefill": "false", "remote_engine_id": "null", "remote_block_ids": "null",
		"remote_host": "null", "remote_port": "null",
	}
	for name, value := range want {
		if string(fields[name]) != value {
			return wrongParams(fmt.Sprintf("%s is %q, want %s", name, fields[name], value))
		}
	}
	switch {
	case len(fields) != len(want):
		return wrongParams("more fields than a prefill engine is asked with")
	case b.Stream:
		return badRequest("stream", "a prefill leg must not stream")
	case b.StreamOptions != nil:
		return badRequest("stream_options", "a prefill leg has no stream_options")
	case b.MaxTokens == nil || *b.MaxTokens != 1:
		return badRequest("max_tokens", "a prefill leg generates one token")
	case b.MaxCompletionTokens != nil && *b.MaxCompletionTokens != 1:
		return badRequest("max_completion_tokens", "a prefill leg generates one token")
	case b.MinTokens != nil:
		return badRequest("min_tokens", "a prefill leg has no min_tokens")
	}
	return nil
}

func wrongParams(why string) error {
	return badRequest("kv_transfer_params", "kv_transfer_params: "+why)
}

// kv names a prompt with all that its KV depends on.
func (a *answer) kv(tokens []uint32) uint64 { return a.name(tokens, 0) ^ xxh3.HashString(a.body.Salt) }

// params are what a decode engine is to be given, byte for byte: an order and spellings that no encoder would choose.
func (e *Engine) params(h *handed, blocks []int32) []byte {
	address := e.listener.Addr().(*net.TCPAddr)
	ids, _ := json.Marshal(blocks)
	head := fmt.Sprintf(`{"remote_port":%d, "do_remote_prefill" : true,"remote_engine_id":%q,"do_remote_decode":false,"remote_host":%q,"tp_size":1`,
		address.Port, e.o.Name, address.IP)
	if e.o.Connector == OldNIXL {
		return fmt.Appendf(nil, `%s,"remote_block_ids":%s}`, head, ids)
	}
	return fmt.Appendf(nil, `%s,"remote_block_ids":[%s],"remote_request_id":%q,"remote_num_tokens":1.60e+1,"\u0061head":{"z":1E2,"a":-0.0,"z":[ ]},`+
		`"remote_blocks_expiry_time":%d.50,"transfer_mode":"pull", "big":12345678901234567890 }`, head, ids, h.key, time.Now().Unix()+30)
}
