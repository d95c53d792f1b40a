package tokens

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// renderer is an engine that answers render with a status and a text, and /tokenize with [2].
type renderer struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	answer string
	asked  []string
}

func startRenderer(t *testing.T) *renderer {
	t.Helper()
	e := &renderer{status: http.StatusOK}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"messages":[{"role":`) && !strings.Contains(string(body), `"prompt":`) {
			t.Errorf("%s with %s", r.URL.Path, body)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.asked = append(e.asked, r.URL.Path)
		if r.URL.Path == "/tokenize" {
			_, _ = io.WriteString(w, `{"count":1,"tokens":[2]}`)
			return
		}
		w.WriteHeader(e.status)
		_, _ = io.WriteString(w, e.answer)
	}))
	t.Cleanup(e.Close)
	return e
}

const (
	render    = "/v1/chat/completions/render"
	tokenizes = "/tokenize"
)

func TestChatIsRenderedWhereEnginesCan(t *testing.T) {
	const rendered = `{"request_id":"r","token_ids":[1],"features":null,"sampling_params":{"tokens":[9]},"model":"m"}`
	cases := map[string]struct {
		status int
		answer string
		id     uint32
		first  string // paths asked for the first prompt
		second string // and for another
	}{
		"rendered":        {200, rendered, 1, render, render},
		"no render":       {404, `{"detail":"Not Found"}`, 2, render + tokenizes, tokenizes},
		"another method":  {405, "", 2, render + tokenizes, tokenizes},
		"an older answer": {200, `[[{"role":"user"}],[{"prompt_token_ids":[1]}]]`, 2, render + tokenizes, tokenizes},
		"with images":     {200, strings.Replace(rendered, "null", "{}", 1), 2, render + tokenizes, tokenizes},
		"refused":         {400, `{"error":{}}`, 2, render + tokenizes, render + tokenizes},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e := startRenderer(t)
			e.status, e.answer = c.status, c.answer
			s := New(Options{Engines: func(string) []string { return []string{e.URL} }, Timeout: 10 * time.Second})
			t.Cleanup(s.Close)
			for i, paths := range []string{c.first, c.second} {
				e.asked = nil
				ids, origin, err := s.Tokens(t.Context(), chat("messages", `[{"role":"user","content":"`+strings.Repeat("x", i)+`"}]`))
				if err != nil || origin != map[uint32]Origin{1: Render, 2: Tokenize}[c.id] || len(ids) != 1 || ids[0] != c.id {
					t.Fatalf("%v from %q, %v; want %d", ids, origin, err, c.id)
				}
				if got := strings.Join(e.asked, ""); got != paths {
					t.Fatalf("prompt %d: asked %s, want %s", i, got, paths)
				}
			}
			e.asked = nil
			if _, _, err := s.Tokens(t.Context(), text("x")); err != nil || strings.Join(e.asked, "") != tokenizes {
				t.Fatalf("a completion asked %v, %v", e.asked, err)
			}
		})
	}
}

func TestAnEngineThatFailsToRenderFails(t *testing.T) {
	e := startRenderer(t)
	e.status = http.StatusInternalServerError
	s := New(Options{Engines: func(string) []string { return []string{e.URL} }, Timeout: 10 * time.Second})
	t.Cleanup(s.Close)
	_, _, err := s.Tokens(t.Context(), chat("messages", `[{"role":"user","content":"x"}]`))
	if why := (*UnknownError)(nil); !errors.As(err, &why) || why.Reason != Failed {
		t.Fatal(err)
	}
}

// An engine without render is asked again after a while: it may have been started anew.
func TestRenderIsTriedAgain(t *testing.T) {
	e := startRenderer(t)
	e.status = http.StatusNotFound
	s := New(Options{Engines: func(string) []string { return []string{e.URL} }, Timeout: 10 * time.Second})
	t.Cleanup(s.Close)
	for i := range 2 {
		s.Tokens(t.Context(), chat("messages", `[{"role":"user","content":"`+strings.Repeat("x", i)+`"}]`))
		s.client.mu.Lock()
		s.client.lacking[e.URL] = s.client.lacking[e.URL].Add(-renderAgain)
		s.client.mu.Unlock()
	}
	if got := strings.Join(e.asked, ""); got != strings.Repeat(render+tokenizes, 2) {
		t.Fatal(got)
	}
}
