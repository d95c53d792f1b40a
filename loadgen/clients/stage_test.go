package clients

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// The models, each a pool. All but chat have one engine, which fails in its own way.
const (
	chat   = "clients/chat-7b"   // two engines that answer
	busy   = "clients/busy-7b"   // 429 with Retry-After twice, then an answer, and so on
	down   = "clients/down-7b"   // 503 twice, then an answer, and so on
	gone   = "clients/gone-7b"   // hangs up before the first byte
	lost   = "clients/lost-7b"   // hangs up in the middle of its answer
	slow   = "clients/slow-7b"   // never answers; a stream begins and then stops
	refuse = "clients/refuse-7b" // answers with the status that the last message names
	tools  = "clients/tools-7b"  // calls a tool
)

// faults are what answers in place of a model's engine: always, or but for every third request.
func faults() map[string]*front {
	return map[string]*front{
		busy: {fault: with(http.StatusTooManyRequests, "1"), third: true},
		down: {fault: with(http.StatusServiceUnavailable, ""), third: true},
		gone: {fault: hangUp}, lost: {fault: loseMiddle}, slow: {fault: stall}, refuse: {fault: refuseAsAsked}, tools: {fault: callTool},
	}
}

// seen is a request as it reached an engine.
type seen struct {
	Path    string  `json:"path"`
	Body    string  `json:"body"`
	Retry   string  `json:"retry"`    // the library's own count of its attempts
	Secret  string  `json:"secret"`   // what came of the client's API key
	AfterMS float64 `json:"after_ms"` // since the one before arrived
}

// front stands before the simulated engines of one model: it keeps what they are asked by clients, and may answer in
// their place. What they are asked to render passes.
type front struct {
	fault http.HandlerFunc // nil lets the engine answer
	third bool             // the engine answers every third request all the same

	mu      sync.Mutex
	count   int
	seen    []seen
	last    time.Time
	running int // requests that have arrived and not ended
}

// open starts one more engine of the model behind this front.
func (f *front) open(t *testing.T, o enginesim.Options) (*enginesim.Engine, *httptest.Server) {
	t.Helper()
	engine, err := enginesim.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(engine.Close)
	target, err := url.Parse(engine.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header["X-Request-Id"] = r.In.Header["X-Request-Id"]
		},
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasSuffix(r.URL.Path, "/render") {
			proxy.ServeHTTP(w, r)
			return
		}
		f.serve(w, r, proxy)
	}))
	t.Cleanup(server.Close)
	return engine, server
}

func (f *front) serve(w http.ResponseWriter, r *http.Request, engine http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	n := f.arrive(r, body)
	defer f.leave()
	answer := engine.ServeHTTP
	switch {
	case f.fault != nil && !(f.third && n%3 == 0):
		answer = f.fault
	case r.URL.Path == "/v1/embeddings":
		answer = embed
	case r.URL.Path == "/v1/responses":
		answer = respond
	}
	answer(w, r)
}

// arrive keeps what came and returns its number.
func (f *front) arrive(r *http.Request, body []byte) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := seen{
		Path: r.URL.Path, Body: string(body), Retry: r.Header.Get("X-Stainless-Retry-Count"),
		Secret: r.Header.Get("Authorization") + r.Header.Get("X-Api-Key"),
	}
	now := time.Now()
	if !f.last.IsZero() {
		s.AfterMS = float64(now.Sub(f.last)) / float64(time.Millisecond)
	}
	f.seen, f.last = append(f.seen, s), now
	f.running++
	f.count++
	return f.count
}

func (f *front) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
}

// take returns what was seen since it was asked last.
func (f *front) take() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.seen
	f.seen, f.last = nil, time.Time{}
	return s
}

func (f *front) now() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

// with refuses with a status.
func with(status int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		writeError(w, status, "overloaded", "")
	}
}

// writeError answers as vLLM does.
func writeError(w http.ResponseWriter, status int, message, param string) {
	object := map[string]any{"message": message, "type": http.StatusText(status), "param": nil, "code": status}
	if param != "" {
		object["param"] = param
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": object})
}
