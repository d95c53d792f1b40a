package enginesim

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"
)

// The length of an answer that nothing limits: a completion has 16 tokens; a chat answer ends by itself after a number
// of tokens that its prompt determines, from shortest to shortest+spread-1.
const (
	completionTokens = 16
	shortest, spread = 16, 240
)

// answer is one HTTP request for text and what it takes to word its response.
type answer struct {
	call     *call
	requests []*Request
	body     *body
	chat     bool
	id       string // cmpl-… or chatcmpl-…
	created  int64
	prompts  int     // prompt tokens
	handed   *handed // the prompt is for another engine; nil where it is not
	fetch    *fetch  // another engine has the prompt; nil where none has
}

// complete serves /v1/completions and /v1/chat/completions.
func (e *Engine) complete(w http.ResponseWriter, r *http.Request, chat bool) {
	a := answer{call: newCall(), body: &body{}, chat: chat, created: time.Now().Unix()}
	if err := readBody(w, r, a.body); err != nil {
		writeError(w, err)
		return
	}
	if err := e.prepare(&a, r.Header.Get("X-Request-Id")); err != nil {
		writeError(w, err)
		return
	}
	if a.fetch != nil {
		if err := a.fetch.hold(); err != nil {
			writeError(w, err)
			return
		}
		defer func() { _ = a.fetch.free() }() // who leaves before the KV was fetched
	}
	if err := e.submit(a.requests); err != nil {
		writeError(w, err)
		return
	}
	defer e.abort(a.requests)
	if e.o.Submitted != nil {
		e.o.Submitted(r.Header.Get("X-Request-Id"))
	}
	if a.body.Stream {
		a.stream(w, r)
		return
	}
	a.whole(w, r)
}

// read turns the body into prompts and how many answers each is to get, or says why it cannot be served.
func (e *Engine) read(a *answer) (prompts [][]uint32, n int, err error) {
	b := a.body
	if b.Model == "" {
		b.Model = e.o.Model
	}
	if b.Model != e.o.Model && !slices.Contains(e.o.Adapters, b.Model) {
		return nil, 0, &apiError{http.StatusNotFound, "NotFoundError", "model", fmt.Sprintf("The model %q does not exist.", b.Model)}
	}
	read := b.completion
	if a.chat {
		read = b.chat
	}
	if prompts, err = read(e.o.Tokenize); err != nil {
		return nil, 0, err
	}
	n = 1
	if b.N != nil {
		n = *b.N
	}
	if n < 1 || n*len(prompts) > 1024 {
		return nil, 0, badRequest("n", "n must be at least 1, and n times the number of prompts at most 1024")
	}
	return prompts, n, nil
}

// identify names the response by X-Request-Id or, without one, by a name of its own.
func (a *answer) identify(given string, call uint64) {
	if given == "" {
		given = fmt.Sprintf("%016x", mix64(call^uint64(time.Now().UnixNano())))
	}
	a.id = "cmpl-" + given
	if a.chat {
		a.id = "chatcmpl-" + given
	}
}

// prepare turns the body into the core's requests, or says why it cannot be served.
func (e *Engine) prepare(a *answer, given string) error {
	tokens, n, err := e.read(a)
	if err != nil {
		return err
	}
	adapter, call := slices.Index(e.o.Adapters, a.body.Model), e.calls.Add(1)
	a.identify(given, call)
	if err := e.asked(a, given, n*len(tokens)); err != nil {
		return err
	}
	for _, t := range tokens {
		a.prompts += len(t)
		limit, stops, err := e.limit(a, t)
		if err != nil {
			return err
		}
		for i := range n {
			index := len(a.requests)
			q := &Request{
				ID: a.id + "-" + strconv.FormatUint(call, 36) + "-" + strconv.Itoa(index), Prompt: t, MaxTokens: limit,
				Answer: a.name(t, i), Salt: a.body.Salt, Remote: a.fetch != nil, Pin: a.handed != nil,
				Tag: &choice{call: a.call, index: index, arrived: time.Now(), stops: stops, handed: a.handed},
			}
			if adapter >= 0 {
				q.LoRA, q.LoRAID = a.body.Model, int64(adapter)+1
			}
			a.requests = append(a.requests, q)
			e.apart(a, t, q)
		}
	}
	return nil
}

// limit returns how many tokens to generate behind a prompt, and whether the answer then ends by itself.
func (e *Engine) limit(a *answer, tokens []uint32) (limit int, stops bool, err error) {
	e.mu.Lock()
	context := e.core.Options().MaxModelLen
	e.mu.Unlock()
	asked := a.body.MaxTokens
	if a.chat && a.body.MaxCompletionTokens != nil {
		asked = a.body.MaxCompletionTokens
	}
	room, least := context-len(tokens), 0
	if a.body.MinTokens != nil {
		least = *a.body.MinTokens
	}
	switch {
	case asked != nil:
		limit = *asked
	case !a.chat:
		limit = min(completionTokens, max(room, 1))
	case a.body.IgnoreEOS:
		limit = max(room, 1)
	default:
		natural := max(least, shortest+int(a.name(tokens, 0)%spread))
		stops = natural <= room
		limit = min(natural, max(room, 1))
	}
	if len(tokens) == 0 {
		return 0, false, badRequest("prompt", "the prompt has no tokens")
	}
	if limit < 1 || least > limit {
		return 0, false, badRequest("max_tokens", "max_tokens must be at least 1 and at least min_tokens")
	}
	if limit > room {
		return 0, false, badRequest("max_tokens", fmt.Sprintf("This model's maximum context length is %d tokens; "+
			"the request has %d tokens of prompt and asks for %d.", context, len(tokens), limit))
	}
	return limit, stops, nil
}

// name names the answer to a prompt, as Request.Answer: like greedy decoding, it depends on nothing but the prompt,
// the adapter, the request's seed and the number of the choice.
func (a *answer) name(tokens []uint32, choice int) uint64 {
	buf := make([]byte, 0, 4*len(tokens)+len(a.body.Model))
	for _, t := range tokens {
		buf = binary.LittleEndian.AppendUint32(buf, t)
	}
	buf = append(buf, a.body.Model...)
	return xxh3.HashSeed(buf, uint64(a.body.Seed)+uint64(choice))
}

// apart names the one prompt of a request that two engines share.
func (e *Engine) apart(a *answer, tokens []uint32, q *Request) {
	if a.handed != nil {
		a.handed.key, a.handed.prompt = q.ID, a.kv(tokens)
		if e.o.Connector == OldNIXL {
			a.handed.key = a.id
		}
	}
	if a.fetch != nil {
		a.fetch.said.Prompt, a.call.fetch = a.kv(tokens), a.fetch
	}
}
