package enginesim

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	askKV  = `{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}`
	legID  = "leg-1"
	forget = 10 * time.Hour // a lease that does not end in a test
)

var kvPrompt = strings.Repeat(" abc", 100)

// leg sends a body under a request id, and returns status and response.
func leg(t *testing.T, e *Engine, id, body string) (int, string) {
	t.Helper()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL()+"/v1/completions", strings.NewReader(body))
	r.Header.Set("X-Request-Id", id)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// handOver computes the prompt on a prefill engine and returns what it hands over, byte for byte.
func handOver(t *testing.T, e *Engine) string {
	t.Helper()
	status, text := leg(t, e, legID, `{"prompt":"`+kvPrompt+`","stream":false,"max_tokens":1,"kv_transfer_params":`+askKV+`}`)
	var answer struct {
		Params json.RawMessage `json:"kv_transfer_params"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 || len(answer.Params) == 0 {
		t.Fatalf("%d %s %v", status, text, err)
	}
	return string(answer.Params)
}

func decodeBody(params string) string {
	return `{"prompt":"` + kvPrompt + `","max_tokens":3,"kv_transfer_params":` + params + `}`
}

func freeAll(t *testing.T, e *Engine) {
	t.Helper()
	quiesce(t, e)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s := e.Stats()
		if s.Pinned == 0 && s.Free == s.Blocks {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("blocks stay in use: %+v", s)
		}
	}
}

// A decode engine takes over a prompt that a prefill engine computed: it computes one token of it, and announces it. The
// prefill engine keeps the blocks until then, with each connector.
func TestPrefillAndDecodeEngines(t *testing.T) {
	for _, connector := range []Connector{NIXL, OldNIXL} {
		prefill := start(t, Options{Name: "p", Connector: connector, Lease: forget})
		decode := start(t, Options{Profile: Profile{Prefill: 100}, Connector: connector})
		params := handOver(t, prefill)
		if s := prefill.Stats(); s.Pinned != 7 || s.Free != s.Blocks-7 {
			t.Fatalf("handed over: %+v", s)
		}
		status, text := leg(t, decode, legID, decodeBody(params))
		var r reply
		if err := json.Unmarshal([]byte(text), &r); err != nil || status != 200 || r.Usage.Details.Cached != 99 || r.Usage.Completion != 3 {
			t.Fatalf("%d %s", status, text)
		}
		freeAll(t, prefill)
		quiesce(t, decode)
		if s := decode.Stats(); s.Cached != 6 || s.Hits != 0 || s.Queries != 100 || s.Free != s.Blocks {
			t.Fatalf("%+v", s)
		}
		if status, text := leg(t, decode, legID, decodeBody(params)); status != 400 || !strings.Contains(text, "used before") {
			t.Fatalf("used twice: %d %s", status, text)
		}
	}
}

// TestAPrefillLegIsChecked changes one thing at a time in a request that is right.
func TestAPrefillLegIsChecked(t *testing.T) {
	e := start(t, Options{Lease: forget})
	right := `{"prompt":"` + kvPrompt + `","stream":false,"max_tokens":1,"kv_transfer_params":` + askKV + `}`
	for name, c := range map[string]struct{ old, new, why string }{
		"streams":          {`"stream":false`, `"stream":true`, "must not stream"},
		"stream options":   {`"stream":false`, `"stream":false,"stream_options":{}`, "no stream_options"},
		"two tokens":       {`"max_tokens":1`, `"max_tokens":2`, "one token"},
		"no limit":         {`"max_tokens":1,`, ``, "one token"},
		"another limit":    {`"max_tokens":1`, `"max_tokens":1,"max_completion_tokens":9`, "one token"},
		"a least length":   {`"max_tokens":1`, `"max_tokens":1,"min_tokens":1`, "no min_tokens"},
		"two answers":      {`"max_tokens":1`, `"max_tokens":1,"n":2`, "one answer"},
		"two prompts":      {`"prompt":"`, `"prompt":["x","y"],"z":"`, "one prompt"},
		"a missing field":  {`"remote_engine_id":null,`, ``, "remote_engine_id"},
		"a field more":     {`"remote_engine_id":null`, `"remote_engine_id":null,"tp_size":null`, "more fields"},
		"a field set":      {`"remote_port":null`, `"remote_port":0`, "remote_port"},
		"both directions":  {`"do_remote_prefill":false`, `"do_remote_prefill":true`, "exactly one"},
		"neither":          {`"do_remote_decode":true`, `"do_remote_decode":false`, "exactly one"},
		"not an object":    {askKV, `[]`, "not those of this connector"},
		"nothing to blame": {`"stream":false`, `"stream":false`, ""},
	} {
		body := strings.Replace(right, c.old, c.new, 1)
		status, text := leg(t, e, "id-"+strings.ReplaceAll(name, " ", ""), body)
		if c.why == "" && status != 200 || c.why != "" && (status != 400 || !strings.Contains(text, c.why)) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if status, text := post(t, e, "/v1/completions", right, nil); status != 400 || !strings.Contains(string(text), "X-Request-Id") {
		t.Errorf("no request id: %d %s", status, text)
	}
	if s := e.Stats(); s.Pinned != 7 {
		t.Errorf("%+v", s)
	}
}

// TestADecodeLegIsChecked alters what was handed over, byte by byte and otherwise.
func TestADecodeLegIsChecked(t *testing.T) {
	prefill := start(t, Options{Name: "p", Lease: forget})
	other, decode := start(t, Options{Name: "q"}), start(t, Options{Name: "d"})
	params := handOver(t, prefill)
	for name, altered := range map[string]string{
		"a space less":     strings.Replace(params, `" : true`, `":true`, 1),
		"a number's form":  strings.Replace(params, "1.60e+1", "16.0", 1),
		"an escape":        strings.Replace(params, `\u0061`, "a", 1),
		"no unknown field": strings.Replace(params, `"transfer_mode":"pull", `, "", 1),
		"a duplicate":      strings.Replace(params, `,"z":[ ]`, "", 1),
		"a large number":   strings.Replace(params, "12345678901234567890", "12345678901234567000", 1),
		"encoded again":    encodedAgain(t, params),
	} {
		if altered == params {
			t.Fatalf("%s: nothing altered in %s", name, params)
		}
		if status, text := leg(t, decode, legID, decodeBody(altered)); status != 400 || !strings.Contains(text, "byte for byte") {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	for name, c := range map[string]struct{ id, body, why string }{
		"another id":      {"leg-2", decodeBody(params), "different X-Request-Ids"},
		"another prompt":  {legID, strings.Replace(decodeBody(params), "abc", "abd", 1), "another prompt"},
		"another salt":    {legID, strings.Replace(decodeBody(params), `{"p`, `{"cache_salt":"s","p`, 1), "another prompt"},
		"another adapter": {legID, strings.Replace(decodeBody(params), `{"p`, `{"model":"sql","p`, 1), "another prompt"},
		"another engine":  {legID, strings.Replace(decodeBody(params), port(prefill), port(other), 1), "of another engine"},
		"another key":     {legID, strings.Replace(decodeBody(params), `"cmpl-leg-1`, `"cmpl-leg-9`, 1), "never computed"},
	} {
		if status, text := leg(t, decode, c.id, c.body); status != 400 || !strings.Contains(text, c.why) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if status, text := leg(t, decode, legID, decodeBody(params)); status != 200 {
		t.Errorf("as it was handed over: %d %s", status, text)
	}
	freeAll(t, prefill)
}

func port(e *Engine) string { return e.URL()[strings.LastIndexByte(e.URL(), ':')+1:] }

func encodedAgain(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(v)
	return string(again)
}

// A lease that nobody used ends, later with the old connector; the prompt is then nobody's.
func TestALeaseEnds(t *testing.T) {
	if NIXL.lease() != 30*time.Second || OldNIXL.lease() != 480*time.Second {
		t.Error("leases are not vLLM's")
	}
	prefill, decode := start(t, Options{Name: "p", Lease: 20 * time.Millisecond}), start(t, Options{})
	params := handOver(t, prefill)
	freeAll(t, prefill)
	if n := prefill.Expired(); n != 1 {
		t.Errorf("%d expired", n)
	}
	if status, text := leg(t, decode, legID, decodeBody(params)); status != 400 || !strings.Contains(text, "lease is over") {
		t.Errorf("%d %s", status, text)
	}
	again := start(t, Options{Name: "p", Lease: forget})
	params = handOver(t, again)
	if err := again.Restart(); err != nil {
		t.Fatal(err)
	}
	if status, text := leg(t, decode, legID, decodeBody(params)); status != 400 || !strings.Contains(text, "restarted") {
		t.Errorf("%d %s", status, text)
	}
}

// A decode engine whose client leaves before the KV is fetched tells the prefill engine.
func TestAClientThatLeavesFreesThePrefillEngine(t *testing.T) {
	prefill := start(t, Options{Name: "p", Lease: forget})
	decode := start(t, Options{Blocks: 8, Profile: Profile{Base: 3_600_000}}) // busy for an hour
	busy, stop := newClient(t, decode, "busy", `{"prompt":"`+kvPrompt+`","max_tokens":9}`)
	eventually(t, "the busy request in the engine", func() bool { return decode.Stats().Free != 8 })
	held, leave := newClient(t, decode, legID, decodeBody(handOver(t, prefill)))
	eventually(t, "a request that waits for its KV", func() bool { return decode.Stats().Waiting != 0 })
	if s := prefill.Stats(); s.Pinned != 7 {
		t.Errorf("freed before anybody fetched it: %+v", s)
	}
	leave()
	<-held
	freeAll(t, prefill)
	stop()
	<-busy
	if n := prefill.Expired(); n != 0 {
		t.Errorf("%d leases ran out", n)
	}
}

// newClient sends a request that leave ends; gone is closed when it is over.
func newClient(t *testing.T, e *Engine, id, body string) (gone chan struct{}, leave func()) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL()+"/v1/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Request-Id", id)
	transport := &http.Transport{}
	gone = make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		defer close(gone)
		if resp, err := transport.RoundTrip(r.WithContext(ctx)); err == nil {
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}()
	return gone, leave
}

// Mixed versions: an older decode engine fetches from a newer prefill engine nothing that it could read; a newer one
// computes what an older one handed over itself, and the older one keeps its blocks until its lease is over.
func TestMixedConnectors(t *testing.T) {
	older, newer := start(t, Options{Name: "p", Connector: OldNIXL, Lease: forget}), start(t, Options{Name: "p", Lease: forget})
	status, text := leg(t, start(t, Options{}), legID, decodeBody(handOver(t, older)))
	var r reply
	if err := json.Unmarshal([]byte(text), &r); err != nil || status != 200 || r.Usage.Details.Cached != 0 || older.Stats().Pinned != 7 {
		t.Errorf("older to newer: %d %s, %+v", status, text, older.Stats())
	}
	if status, text := leg(t, start(t, Options{Connector: OldNIXL}), legID, decodeBody(handOver(t, newer))); status != 500 {
		t.Errorf("newer to older: %d %s", status, text)
	}
	status, text = leg(t, start(t, Options{Connector: NoConnector}), legID, `{"prompt":"x","max_tokens":1,"kv_transfer_params":`+askKV+`}`)
	if status != 200 || strings.Contains(text, "kv_transfer_params") {
		t.Errorf("without a connector: %d %s", status, text)
	}
}
