package router

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/router/internal/bodies"
)

func TestBytesOfBodiesAreBounded(t *testing.T) {
	g := newRig(t, Config{BodyBytes: 4000})
	g.rt.memory.Wait = 20 * time.Millisecond
	e := g.addTurnstile("e1")
	var wait sync.WaitGroup
	wait.Go(func() { g.ask("first"+strings.Repeat(".", 3000), "") })
	e.now(t)
	resp, body := g.ask("second"+strings.Repeat(".", 3000), "")
	if resp.StatusCode != 503 || resp.Header.Get("X-Llm-D-Request-Dropped-Reason") != "rejected-body-bytes" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, _ := g.ask("too large at all"+strings.Repeat(".", 4000), ""); resp.StatusCode != 503 {
		t.Errorf("%d", resp.StatusCode)
	}
	g.rt.memory.Wait = time.Minute
	wait.Go(func() { g.ask("third"+strings.Repeat(".", 3000), "") })
	if got := e.next(t); got != "third" { // it waited for the first one's bytes
		t.Errorf("got %s", got)
	}
	e.go1 <- struct{}{}
	wait.Wait()
	g.idle()
	g.rt.memory.Wait = 10 * time.Second
	all, err := g.rt.memory.Take(t.Context(), 4000)
	if err != nil {
		t.Errorf("not all bytes are given back: %v", err)
	}
	g.rt.memory.Give(all)
}

// A body whose length nobody announced counts as the longest until it is there, and then as what it is.
func TestBodiesOfUnknownLengthGiveBytesBack(t *testing.T) {
	g := newRig(t, Config{BodyBytes: bodies.Most + 1000})
	g.rt.memory.Wait = 20 * time.Millisecond
	e := g.addTurnstile("e1")
	chunked := func(r *http.Request) { r.ContentLength = -1; r.Body = io.NopCloser(io.MultiReader(r.Body)) }
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			if resp, body := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model), chunked); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
		e.now(t)
	}
	e.go1 <- struct{}{}
	e.go1 <- struct{}{}
	wait.Wait()
	g.idle()
}
