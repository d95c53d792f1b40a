package enginesim

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxBody bounds what a request body may hold, in bytes.
const maxBody = 64 << 20

// routes returns the handler of vLLM's HTTP interface.
func (e *Engine) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) { e.complete(w, r, false) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { e.complete(w, r, true) })
	if !e.o.NoRender {
		mux.HandleFunc("POST /v1/completions/render", func(w http.ResponseWriter, r *http.Request) { e.render(w, r, false) })
		mux.HandleFunc("POST /v1/chat/completions/render", func(w http.ResponseWriter, r *http.Request) { e.render(w, r, true) })
	}
	mux.HandleFunc("POST /tokenize", e.tokenize)
	mux.HandleFunc("POST /detokenize", e.detokenize)
	mux.HandleFunc("GET /v1/models", e.models)
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /ping", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"version": "0.26.0+enginesim"})
	})
	mux.HandleFunc("GET /metrics", e.serveMetrics)
	mux.HandleFunc("POST /reset_prefix_cache", e.reset)
	mux.HandleFunc("POST "+fetchPath, e.serveFetch)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header.Get("X-Request-Id"); id != "" {
			w.Header().Set("X-Request-Id", id)
		}
		mux.ServeHTTP(w, r)
	})
}

func (e *Engine) serveMetrics(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	registry := e.metrics.registry
	e.mu.Unlock()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

func (e *Engine) reset(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	done := e.core.Reset()
	e.mu.Unlock()
	writeJSON(w, map[string]bool{"success": done})
}

// model is one entry of /v1/models.
type model struct {
	ID          string  `json:"id"`
	Object      string  `json:"object"`
	Created     int64   `json:"created"`
	OwnedBy     string  `json:"owned_by"`
	Root        string  `json:"root"`
	Parent      *string `json:"parent"`
	MaxModelLen *int    `json:"max_model_len"`
	Permission  []any   `json:"permission"`
}

func (e *Engine) models(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	born, length := e.born.Unix(), e.core.Options().MaxModelLen
	e.mu.Unlock()
	base := e.o.Model
	entry := func(id string) model {
		return model{ID: id, Object: "model", Created: born, OwnedBy: "vllm", Root: id, Permission: []any{}}
	}
	first := entry(base)
	first.MaxModelLen = &length
	list := []model{first}
	for _, id := range e.o.Adapters {
		m := entry(id)
		m.Parent = &base
		list = append(list, m)
	}
	writeJSON(w, map[string]any{"object": "list", "data": list})
}

func (e *Engine) tokenize(w http.ResponseWriter, r *http.Request) {
	var b body
	if err := readBody(w, r, &b); err != nil {
		writeError(w, err)
		return
	}
	var tokens []uint32
	if b.Messages != nil {
		list, err := b.chat(e.o.Tokenize)
		if err != nil {
			writeError(w, err)
			return
		}
		tokens = list[0]
	} else {
		var text string
		if err := json.Unmarshal(b.Prompt, &text); err != nil {
			writeError(w, badRequest("prompt", "prompt must be a string"))
			return
		}
		tokens = e.o.Tokenize(nil, text)
	}
	var texts []string
	if b.ReturnTokenStrs {
		for _, t := range tokens {
			texts = append(texts, string(Detokenize(nil, t)))
		}
	}
	e.mu.Lock()
	length := e.core.Options().MaxModelLen
	e.mu.Unlock()
	if tokens == nil {
		tokens = []uint32{}
	}
	writeJSON(w, map[string]any{
		"count": len(tokens), "max_model_len": length, "tokens": tokens, "token_strs": texts,
	})
}

func (e *Engine) detokenize(w http.ResponseWriter, r *http.Request) {
	var b struct {
		Tokens []uint32 `json:"tokens"`
	}
	if err := readBody(w, r, &b); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, map[string]string{"prompt": string(Detokenize(nil, b.Tokens...))})
}

// apiError is an error as vLLM tells it to a client.
type apiError struct {
	status               int
	kind, param, message string
}

func (e *apiError) Error() string { return e.message }

func badRequest(param, message string) error {
	return &apiError{http.StatusBadRequest, "BadRequestError", param, message}
}

// object is the JSON form of an error, {"error":{...}}, since vLLM v0.10.1.
func (e *apiError) object() []byte {
	var param any
	if e.param != "" {
		param = e.param
	}
	text, _ := json.Marshal(map[string]any{"error": map[string]any{
		"message": e.message, "type": e.kind, "param": param, "code": e.status,
	}})
	return text
}

// asAPI gives every error its status.
func asAPI(err error) *apiError {
	var api *apiError
	switch {
	case errors.As(err, &api):
		return api
	case errors.Is(err, ErrTooLong), errors.Is(err, ErrEmpty), errors.Is(err, ErrDuplicate):
		return &apiError{http.StatusBadRequest, "BadRequestError", "", err.Error()}
	}
	return &apiError{http.StatusInternalServerError, "InternalServerError", "", err.Error()}
}

func writeError(w http.ResponseWriter, err error) {
	api := asAPI(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(api.status)
	_, _ = w.Write(api.object())
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v); err != nil {
		return badRequest("", "the body is not a valid request: "+err.Error())
	}
	return nil
}
