package router

import (
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/bodies"
	"github.com/warmpath/warmpath/services/router/internal/door"
	"github.com/warmpath/warmpath/services/router/internal/tenants"
)

// request is what the router reads in one request. It belongs to the request's goroutine.
type request struct {
	id      string
	kind    scorerv1.Kind // unspecified for what is balanced by load alone
	path    string        // as the client spelt it, escapes included
	query   string
	header  http.Header
	arrived time.Time
	body    *bodies.Body
	scan    openai.Body

	model   string
	pool    fleet.Pool
	lora    string
	salt    string
	stream  bool
	ownsUse bool   // the client asked for the usage chunk itself
	options []byte // of the stream, where the client's must be replaced

	caller caller
	visit  door.Visit
	slo    SLO
	charge tenants.Charge
	prompt int // tokens of the prompt and the answer, once they are known
	output int
	asked  bool // an engine was
	pays   bool // it is charged to its tenant's budget

	foreseen int // tokens of the prompt, where they were made from its text; else 0
}

func badRequest(param, message string) *openai.Error {
	return &openai.Error{Status: http.StatusBadRequest, Param: param, Message: message}
}

// checkType refuses what is not JSON.
func checkType(h http.Header) *openai.Error {
	sent := h.Get("Content-Type")
	if sent == "application/json" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(sent)
	if err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json")) {
		return nil
	}
	return &openai.Error{Status: http.StatusUnsupportedMediaType, Message: "the content type must be application/json"}
}

// read scans and checks the body. What only the engine can judge is left to the engine.
func (q *request) read() *openai.Error {
	if err := q.scan.Scan(q.body.Raw); err != nil {
		return &openai.Error{
			Status: http.StatusBadRequest, Code: "invalid_json",
			Message: "the request body is no JSON object: " + err.Error(),
		}
	}
	var err error
	if q.model, err = openai.ReadString(q.scan.Value("model")); err != nil || q.model == "" {
		return badRequest("model", "model must be a string that names a model")
	}
	if raw := q.scan.Value("cache_salt"); raw != nil {
		if q.salt, err = openai.ReadString(raw); err != nil {
			return badRequest("cache_salt", "cache_salt must be a string")
		}
	}
	if raw := q.scan.Value("stream"); raw != nil {
		if q.stream, err = openai.ReadBool(raw); err != nil {
			return badRequest("stream", "stream must be true or false")
		}
	}
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if raw := q.scan.Value(name); raw != nil {
			if n, err := openai.ReadInt(raw); err != nil || n < 0 {
				return badRequest(name, name+" must be a whole number that is not negative")
			}
		}
	}
	e := q.checkTransfer()
	if e != nil {
		return e
	}
	switch q.kind {
	case scorerv1.Kind_KIND_CHAT:
		e = q.readChat()
	case scorerv1.Kind_KIND_COMPLETIONS:
		e = q.readCompletion()
	}
	q.rewrite()
	return e
}

// checkTransfer refuses transfer parameters in the places by which vLLM hands members on to its connectors unread.
func (q *request) checkTransfer() *openai.Error {
	if q.caller.trusted() {
		return nil
	}
	extra := memberOf(q.scan.Value("sampling_params"), "extra_args")
	for _, place := range [][]byte{q.scan.Value("vllm_xargs"), extra} {
		if memberOf(place, transferParams) != nil {
			return badRequest(transferParams, transferParams+" may not be set")
		}
	}
	return nil
}

// memberOf is a member of an object; nil where there is none.
func memberOf(object []byte, name string) []byte {
	var b openai.Body
	if object == nil || b.Scan(object) != nil {
		return nil
	}
	return b.Value(name)
}

// rewrite makes the bytes that engines get. Which engine's blocks another reads is nothing that clients decide.
func (q *request) rewrite() {
	forged := !q.caller.trusted() && q.scan.Value(transferParams) != nil
	if !forged && q.options == nil {
		return
	}
	p := openai.NewPatch(&q.scan)
	if forged {
		p.Delete(transferParams)
	}
	if q.options != nil {
		p.Set("stream_options", q.options)
	}
	q.body.Patch(p)
}

func (q *request) readChat() *openai.Error {
	m, ok := q.scan.Find("messages")
	if !ok || m.Kind != openai.Array {
		return badRequest("messages", "messages must be an array")
	}
	if openai.IsEmpty(q.body.Raw[m.Start:m.End]) {
		return badRequest("messages", "messages must not be empty")
	}
	return q.readUsage()
}

func (q *request) readCompletion() *openai.Error {
	m, ok := q.scan.Find("prompt")
	switch {
	case !ok || m.Kind == openai.Null:
		if q.scan.Value("prompt_embeds") == nil {
			return badRequest("prompt", "prompt is missing")
		}
	case m.Kind != openai.String && m.Kind != openai.Array:
		return badRequest("prompt", "prompt must be a string, or an array of strings or token ids")
	case m.Kind == openai.Array && openai.IsEmpty(q.body.Raw[m.Start:m.End]):
		return badRequest("prompt", "prompt must not be empty")
	}
	return q.readUsage()
}

// readUsage makes a stream carry usage. Where the client did not ask for it, the body is patched.
func (q *request) readUsage() *openai.Error {
	if !q.stream {
		return nil
	}
	options := q.scan.Value("stream_options")
	if options == nil {
		q.options = []byte(`{"include_usage":true}`)
		return nil
	}
	var inner openai.Body
	if err := inner.Scan(options); err != nil {
		return badRequest("stream_options", "stream_options must be an object")
	}
	if raw := inner.Value("include_usage"); raw != nil {
		asked, err := openai.ReadBool(raw)
		if err != nil {
			return badRequest("stream_options", "stream_options.include_usage must be true or false")
		}
		if q.ownsUse = asked; asked {
			return nil
		}
	}
	p := openai.NewPatch(&inner)
	p.Set("include_usage", []byte("true"))
	q.options = p.Append(nil)
	return nil
}

// spans are the members that decide the prompt's tokens, byte for byte.
func (q *request) spans() []*scorerv1.Span {
	names := []string{"prompt", "add_special_tokens", "prompt_embeds", "suffix", "truncate_prompt_tokens"}
	if q.kind == scorerv1.Kind_KIND_CHAT {
		names = []string{
			"messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
			"continue_final_message", "mm_processor_kwargs", "add_special_tokens", "documents", "truncate_prompt_tokens",
		}
	}
	spans := make([]*scorerv1.Span, 0, len(names))
	for _, name := range names {
		if value := q.scan.Value(name); value != nil {
			spans = append(spans, &scorerv1.Span{Name: name, Value: value})
		}
	}
	return spans
}

// text is the part of the body that grows from turn to turn; nil when the request has no prompt that we know.
func (q *request) text() []byte {
	switch q.kind {
	case scorerv1.Kind_KIND_CHAT:
		return q.scan.Value("messages")
	case scorerv1.Kind_KIND_COMPLETIONS:
		return q.scan.Value("prompt")
	}
	return nil
}
