package router

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// leaver posts a request that leave cancels.
func (g *rig) leaver(body string) (leave func(), gone chan struct{}) {
	ctx, cancel := context.WithCancel(g.t.Context())
	gone = make(chan struct{})
	go func() {
		defer close(gone)
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	return cancel, gone
}

func TestAClientThatLeavesWhileItsPromptIsComputed(t *testing.T) {
	g, w := newRig(t, Config{Policy: "least-tokens"}), &witness{}
	arrived, stopped := make(chan struct{}), make(chan struct{})
	w.apart(g, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(stopped)
	}, plain(decodeAnswer))
	leave, gone := g.leaver(fmt.Sprintf(`{"model":%q,"prompt":%q}`, model, strings.Repeat(longPrompt(), 60)))
	<-arrived
	leave()
	<-stopped
	<-gone
	g.idle()
	g.eventually("a record", func() bool { return g.mail.last().Outcome == outcomeCancelled })
	if g.outcome() != splitCancelled || names(w.took()) != "p" || len(g.logs.lines("engine ejected")) > 0 {
		t.Errorf("record %+v", g.mail.last().Split)
	}
}

// TestAClientThatLeavesBetweenTheLegsPinsNothing holds the prefill engine's answer until the client has gone: the decode
// engine is made to read the blocks, and no more.
func TestAClientThatLeavesBetweenTheLegsPinsNothing(t *testing.T) {
	g, w := newRig(t, Config{Policy: "least-tokens"}), &witness{}
	reading, rest := &reads{RoundTripper: g.rt.engines.RoundTripper, begun: make(chan struct{})}, make(chan struct{})
	g.rt.engines.RoundTripper = reading
	t.Cleanup(func() { g.rt.engines.RoundTripper = reading.RoundTripper })
	w.apart(g, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, prefillAnswer[:40])
		w.(http.Flusher).Flush()
		<-rest
		_, _ = io.WriteString(w, prefillAnswer[40:])
	}, plain(decodeAnswer))
	noticed, handler := make(chan struct{}), g.rt.handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { close(noticed) })
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	g.url = server.URL
	leave, gone := g.leaver(longBody(`,"max_tokens":900,"stream":true`))
	<-reading.begun
	p := g.rt.pool(poolRecord.ID)
	leave()
	<-gone
	<-noticed
	close(rest)
	g.idle()
	g.rt.given.wait()
	legs := w.took()
	if names(legs) != "p d" || !strings.Contains(legs[1].body, `"max_tokens":1,"stream":false,"kv_transfer_params":`+oddParams) ||
		legs[1].header.Get("X-Request-Id") != legs[0].header.Get("X-Request-Id") {
		t.Errorf("asked %s; decode got %s", names(legs), tail(legs[len(legs)-1].body))
	}
	g.eventually("a record", func() bool { return g.mail.last().Outcome == outcomeCancelled })
	if l := p.Loads(); len(l) != 2 {
		t.Errorf("%+v", l)
	}
}
