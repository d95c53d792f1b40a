package router

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// flushes is a ResponseWriter that knows what of an answer has been flushed.
type flushes struct {
	header  http.Header
	waiting strings.Builder
	sent    chan string // one for each flush
}

func (f *flushes) Header() http.Header         { return f.header }
func (f *flushes) WriteHeader(int)             {}
func (f *flushes) Write(p []byte) (int, error) { return f.waiting.Write(p) }

func (f *flushes) FlushError() error {
	f.sent <- f.waiting.String()
	f.waiting.Reset()
	return nil
}

// through sends a stream request to the router; answered is closed at the end of the handler.
func (g *rig) through() (f *flushes, answered chan struct{}) {
	f, answered = &flushes{header: http.Header{}, sent: make(chan string, 100)}, make(chan struct{})
	r := httptest.NewRequest(http.MethodPost, "/v1/completions", strings.NewReader(`{"model":"`+model+`","prompt":"p","stream":true}`))
	r.Header.Set("Content-Type", "application/json")
	go func() {
		defer close(answered)
		g.rt.handler().ServeHTTP(f, r)
	}()
	return f, answered
}

// TestEachPieceIsFlushedAlone: an event that comes alone goes on alone, before the next one has come.
func TestEachPieceIsFlushedAlone(t *testing.T) {
	g := newRig(t, Config{})
	next := make(chan struct{})
	g.addEngine("e0", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 5 {
			_, _ = io.WriteString(w, event1)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
		_, _ = io.WriteString(w, useEvent+doneMark)
	})
	f, answered := g.through()
	for i := range 5 {
		select {
		case got := <-f.sent:
			if got != event1 {
				t.Errorf("piece %d: %q", i, got)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("piece %d is held back", i)
		}
		next <- struct{}{}
	}
	<-answered
	rest := f.waiting.String()
	for len(f.sent) > 0 {
		rest = <-f.sent + rest
	}
	if rest != doneMark {
		t.Errorf("at the end %q", rest)
	}
}

// TestPiecesThatComeTogetherAreFlushedTogether: an answer that comes at once costs one write, although the usage chunk
// is taken out of its middle.
func TestPiecesThatComeTogetherAreFlushedTogether(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e0", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, strings.Repeat(event1, 10)+useEvent+doneMark)
	})
	for range 5 {
		f, answered := g.through()
		<-answered
		if got := <-f.sent; len(f.sent) > 0 || f.waiting.Len() > 0 || got != strings.Repeat(event1, 10)+doneMark {
			t.Errorf("%d more flushes after %q, waiting %q", len(f.sent), got, f.waiting.String())
		}
	}
}
