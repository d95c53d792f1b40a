package enginesim

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// rendered is vLLM's GenerateRequest: a request as the engine would compute it, by token ids.
type rendered struct {
	ID       string          `json:"request_id"`
	Tokens   []uint32        `json:"token_ids"`
	Features *struct{}       `json:"features"` // of images and audio, which no simulated model reads
	Sampling sampling        `json:"sampling_params"`
	Model    string          `json:"model"`
	Stream   bool            `json:"stream"`
	Salt     *string         `json:"cache_salt"`
	Priority int             `json:"priority"`
	Transfer json.RawMessage `json:"kv_transfer_params"`
}

// sampling is the part of vLLM's sampling parameters that means something here.
type sampling struct {
	N         int   `json:"n"`
	MaxTokens int   `json:"max_tokens"`
	MinTokens int   `json:"min_tokens"`
	IgnoreEOS bool  `json:"ignore_eos"`
	Seed      int64 `json:"seed"`
}

// render serves /v1/completions/render, with an array of one element a prompt, and /v1/chat/completions/render, with
// the one. It reads and refuses a body as the endpoint that computes it does.
func (e *Engine) render(w http.ResponseWriter, r *http.Request, chat bool) {
	a := answer{body: &body{}, chat: chat}
	if err := readBody(w, r, a.body); err != nil {
		writeError(w, err)
		return
	}
	if e.o.Rendering != nil {
		e.o.Rendering(r)
	}
	list, err := e.rendered(&a, r.Header.Get("X-Request-Id"))
	switch {
	case err != nil:
		writeError(w, err)
	case chat:
		writeJSON(w, list[0])
	default:
		writeJSON(w, list)
	}
}

func (e *Engine) rendered(a *answer, id string) ([]rendered, error) {
	prompts, n, err := e.read(a)
	if err != nil {
		return nil, err
	}
	a.identify(id, e.calls.Add(1))
	var list []rendered
	for i, tokens := range prompts {
		limit, _, err := e.limit(a, tokens)
		if err != nil {
			return nil, err
		}
		one := rendered{
			ID: a.id, Tokens: tokens, Model: a.body.Model, Stream: a.body.Stream, Transfer: a.body.Transfer,
			Sampling: sampling{N: n, MaxTokens: limit, IgnoreEOS: a.body.IgnoreEOS, Seed: a.body.Seed},
		}
		if !a.chat {
			one.ID += fmt.Sprint("-", i)
		}
		if a.body.MinTokens != nil {
			one.Sampling.MinTokens = *a.body.MinTokens
		}
		if a.body.Salt != "" {
			one.Salt = &a.body.Salt
		}
		list = append(list, one)
	}
	return list, nil
}
