package router

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

const (
	event1   = `data: {"id":"c","choices":[{"index":0,"text":"a"}]}` + "\n\n"
	event2   = `data: {"id":"c","choices":[{"index":0,"text":"b"}]}` + "\n\n"
	useEvent = `data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0}}}` + "\n\n"
	doneMark = "data: [DONE]\n\n"
)

func sse(parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, p := range parts {
			_, _ = io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}
}

func TestEnginesGetTheKeyOfTheEnvironment(t *testing.T) {
	t.Setenv("VLLM_API_KEY", "from-the-environment")
	g := newRig(t, Config{})
	var got string
	g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		plain(okAnswer)(w, r)
	})
	g.post("/v1/completions", `{"model":"`+model+`","prompt":"x"}`)
	if got != "Bearer from-the-environment" {
		t.Errorf("the engine got %q", got)
	}
}

func TestBytesAreForwardedAsTheyAre(t *testing.T) {
	g := newRig(t, Config{EngineKey: "engine-secret"})
	var got []byte
	var header http.Header
	var uri string
	g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		header, uri = r.Header.Clone(), r.URL.RequestURI()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Engine-Says", "hello")
		w.Header().Set("X-Request-Id", "engine-made")
		_, _ = io.WriteString(w, okAnswer)
	}, func(e *fleet.Engine) { e.Ranks, e.Rank = 4, 2 })
	sent := "{ \"zeta\":1.0e+2 ,\t\"model\" : \"" + model + "\",\n\"prompt\":\"caf\\u00e9 \xc3\xa9\", \"seed\":12345678901234567890, \"a\":[ ] }\n"
	resp, answer := g.post("/v1/completions?x=1", sent, func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer tenant-key")
		r.Header.Set("X-Request-Id", "client-id.1")
		r.Header.Set("X-Prefiller-Host-Port", "10.0.0.1:80")
		r.Header.Set("X-Data-Parallel-Rank", "0")
		r.Header.Set("X-Llm-D-Inference-Fairness-Id", "me-first")
		r.Header.Set("X-Session-Id", "s1")
		r.Header.Set("Connection", "x-hop")
		r.Header.Set("X-Hop", "1")
	})
	if string(got) != sent || uri != "/v1/completions?x=1" {
		t.Errorf("engine got %q at %s", got, uri)
	}
	if answer != okAnswer || resp.StatusCode != 200 {
		t.Errorf("client got %d %q", resp.StatusCode, answer)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer engine-secret", "X-Request-Id": "client-id.1", "X-Prefiller-Host-Port": "",
		"X-Data-Parallel-Rank": "2", "X-Llm-D-Inference-Fairness-Id": "", "X-Session-Id": "s1", "X-Hop": "", "Content-Type": "application/json",
	} {
		if header.Get(name) != want {
			t.Errorf("engine got %s: %q, want %q", name, header.Get(name), want)
		}
	}
	if h := resp.Header; h.Get("X-Request-Id") != "client-id.1" || h.Get("X-Warmpath-Engine") != "e1" || h.Get("X-Engine-Says") != "hello" {
		t.Errorf("client got %v", h)
	}
	g.idle()
	r := g.mail.last()
	if r.ID != "client-id.1" || r.OutputTokens != 5 || r.PromptTokens != 7 || *r.CachedMeasured != 4 || r.Computed != 3 || r.Prefill != nil || r.Outcome != outcomeOK || r.TTFT != nil {
		t.Errorf("record %+v", r)
	}
}

func TestRequestIDsThatCouldDoHarmAreReplaced(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", plain(okAnswer))
	body := fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)
	for _, id := range []string{"", "has space", "semi;colon", strings.Repeat("x", 129), `"quoted"`} {
		resp, _ := g.post("/v1/completions", body, func(r *http.Request) { r.Header.Set("X-Request-Id", id) })
		if got := resp.Header.Get("X-Request-Id"); got == id || len(got) != 36 || got[14] != '7' {
			t.Errorf("id %q became %q, want a UUIDv7", id, got)
		}
	}
}

func TestAStreamPassesWithoutTheUsageChunkThatNobodyAskedFor(t *testing.T) {
	g := newRig(t, Config{})
	var got string
	stream := sse(event1, event2[:30], event2[30:], useEvent, doneMark)
	g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = string(b)
		stream(w, r)
	})
	head := `{"model":"` + model + `","prompt":"hi","stream":true`
	for _, c := range []struct{ tail, sent, answer string }{
		{`}`, `,"stream_options":{"include_usage":true}}`, event1 + event2 + doneMark},
		{`,"stream_options":null}`, `,"stream_options":{"include_usage":true}}`, event1 + event2 + doneMark},
		{`,"stream_options":{ "x":1 } }`, `,"stream_options":{ "x":1,"include_usage":true } }`, event1 + event2 + doneMark},
		{`,"stream_options":{"include_usage": false}}`, `,"stream_options":{"include_usage": true}}`, event1 + event2 + doneMark},
		{`,"stream_options":{"include_usage":true}}`, `,"stream_options":{"include_usage":true}}`, event1 + event2 + useEvent + doneMark},
	} {
		resp, answer := g.post("/v1/completions", head+c.tail)
		if got != head+c.sent {
			t.Errorf("%s: engine got %s", c.tail, got)
		}
		if answer != c.answer || resp.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
			t.Errorf("%s: client got %s", c.tail, answer)
		}
		g.idle()
		r := g.mail.last()
		if r.OutputTokens != 2 || r.PromptTokens != 9 || *r.CachedMeasured != 0 || r.Computed != 9 || r.Prefill == nil || r.TTFT == nil || r.Outcome != outcomeOK {
			t.Errorf("%s: record %+v", c.tail, r)
		}
	}
}

func TestEachEventIsFlushedAtOnce(t *testing.T) {
	g := newRig(t, Config{})
	next := make(chan string)
	g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for e := range next {
			_, _ = io.WriteString(w, e)
			w.(http.Flusher).Flush()
		}
	})
	go func() { next <- event1 }() // the header comes with the first event
	resp, err := http.Post(g.url+"/v1/completions", "application/json", strings.NewReader(`{"model":"`+model+`","prompt":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for i := range 5 {
		line, err := in.ReadString('\n') // before the engine sends the next one
		if err != nil || line+"\n" != event1 {
			t.Fatalf("event %d: %q %v", i, line, err)
		}
		_, _ = in.ReadString('\n')
		next <- event1
	}
	close(next)
	if rest, err := io.ReadAll(in); err != nil || string(rest) != event1 {
		t.Errorf("rest %q, %v", rest, err)
	}
	g.idle()
}

func TestAnotherEngineIsTriedBeforeTheFirstByte(t *testing.T) {
	body := fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)
	for name, bad := range map[string]http.HandlerFunc{
		"unavailable": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"bad gateway": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) },
		"busy":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"hangs up":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"not there":   nil,
	} {
		g := newRig(t, Config{Policy: "round-robin"})
		server := g.addEngine("a", bad)
		if bad == nil {
			server.Close()
		}
		var got string
		g.addEngine("b", func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			got = string(b)
			_, _ = io.WriteString(w, okAnswer)
		})
		resp, answer := g.post("/v1/completions", body)
		if resp.StatusCode != 200 || answer != okAnswer || got != body || resp.Header.Get("X-Warmpath-Engine") != "b" {
			t.Errorf("%s: %d %s from %s; engine got %s", name, resp.StatusCode, answer, resp.Header.Get("X-Warmpath-Engine"), got)
		}
		g.idle()
		if r := g.mail.last(); r.Retries != 1 || r.Engine != "id-b" || r.Chosen != "b" {
			t.Errorf("%s: record %+v", name, r)
		}
		if n := len(g.logs.lines("Got pod scores")); n != 1 {
			t.Errorf("%s: %d decision lines", name, n)
		}
	}
}

func TestWithoutAnyWorkingEngineTheClientIsTold(t *testing.T) {
	body := fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)
	g := newRig(t, Config{})
	g.addEngine("a", nil).Close()
	g.addEngine("b", nil).Close()
	resp, answer := g.post("/v1/completions", body)
	checkError(t, "all away", resp, answer, 502, "engine_unreachable", "")
	g.idle()
	if r := g.mail.last(); r.Outcome != outcomeNoAnswer || r.Status != 502 {
		t.Errorf("record %+v", r)
	}

	g = newRig(t, Config{})
	var asked atomic.Int64
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		g.addEngine(name, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(429)
			_, _ = io.WriteString(w, "full")
		})
	}
	resp, answer = g.post("/v1/completions", body)
	if resp.StatusCode != 429 || answer != "full" || resp.Header.Get("Retry-After") != "3" || asked.Load() != 1+maxRetries {
		t.Errorf("all busy: %d %s after %d attempts", resp.StatusCode, answer, asked.Load())
	}
	for range 50 {
		g.post("/v1/completions", body)
	}
	if n := asked.Load(); n > 51+retryBurst+6 {
		t.Errorf("%d attempts for 51 requests: the budget does not hold", n)
	}
	g.idle()
}

// failuresToEject is package ledger's: failures in a row.
const failuresToEject = 3

func TestAnEngineThatKeepsFailingIsEjected(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	var asked atomic.Int64
	g.addEngine("a", func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(503) })
	g.addEngine("b", plain(okAnswer))
	for range 20 {
		if resp, _ := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	if asked.Load() != failuresToEject {
		t.Errorf("the failing engine was asked %d times", asked.Load())
	}
	if n := len(g.logs.lines("engine ejected")); n != 1 {
		t.Errorf("%d log lines", n)
	}
}

func TestAnEngineThatLosesEveryAnswerIsEjected(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	var asked atomic.Int64
	g.addEngine("a", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		sse(event1)(w, r)
		panic(http.ErrAbortHandler)
	})
	g.addEngine("b", sse(event1, doneMark))
	for range 20 {
		g.post("/v1/completions", `{"model":"`+model+`","prompt":"x","stream":true}`)
		g.idle()
	}
	if asked.Load() != failuresToEject {
		t.Errorf("the engine that loses was asked %d times", asked.Load())
	}
}

func TestALossInTheMiddleEndsInAnErrorEvent(t *testing.T) {
	const errorEvent = `data: {"error":{"message":"the engine failed in the middle of the answer","type":"server_error","param":null,"code":"engine_lost"}}` + "\n\n"
	long := `data: {"x":"` + strings.Repeat("y", 100<<10)
	for name, c := range map[string]struct {
		sent   []string
		answer string
	}{
		"between events":     {[]string{event1}, event1 + errorEvent},
		"in an event":        {[]string{event1, event2[:20]}, event1 + errorEvent},
		"between newlines":   {[]string{event1, event2[:len(event2)-1]}, event1 + errorEvent},
		"in a very long one": {[]string{event1, long}, event1 + long + "\n\n" + errorEvent},
	} {
		g := newRig(t, Config{})
		g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
			sse(c.sent...)(w, r)
			panic(http.ErrAbortHandler)
		})
		if _, answer := g.post("/v1/completions", `{"model":"`+model+`","prompt":"x","stream":true}`); answer != c.answer {
			t.Errorf("%s: client got %q", name, answer)
		}
		g.idle()
		if r := g.mail.last(); r.Outcome != outcomeLost || r.Status != 200 {
			t.Errorf("%s: record %+v", name, r)
		}
	}
}

func TestALossInTheMiddleOfAWholeAnswerIsSeen(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"id":`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := http.Post(g.url+"/v1/completions", "application/json", strings.NewReader(`{"model":"`+model+`","prompt":"x"}`))
	if err == nil {
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("half an answer looks whole: %q", b)
		}
	}
	g.idle()
}

func TestAClientThatLeavesFreesItsPlaceAtOnce(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		g := newRig(t, Config{})
		arrived, gone := make(chan struct{}), make(chan struct{})
		g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if streaming {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, event1)
				w.(http.Flusher).Flush()
			}
			close(arrived)
			<-r.Context().Done()
			close(gone)
		})
		ctx, cancel := context.WithCancel(t.Context())
		body := fmt.Sprintf(`{"model":%q,"prompt":"hi","stream":%v}`, model, streaming)
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resp, err := http.DefaultClient.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}()
		<-arrived
		p := g.rt.pool(poolRecord.ID)
		if n := p.report(g.fleet.View(), "r", time.Now(), time.Now()).Engines["id-e1"].Inflight; n != 1 {
			t.Errorf("%d in flight", n)
		}
		cancel()
		<-ended
		<-gone // the engine sees it too
		g.idle()
		g.eventually("a record", func() bool { return g.mail.last().Outcome == outcomeCancelled })
	}
}

func TestOtherAPIsGoToThePoolByModel(t *testing.T) {
	g := newRig(t, Config{})
	var paths []string
	var mu sync.Mutex
	g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		mu.Unlock()
		_, _ = io.WriteString(w, `{}`)
	})
	g.addScorer()
	want := []string{"/v1/embeddings", "/v1/rerank", "/v1/audio/speech", "/tokenize", "/inference/v1/generate"}
	for _, path := range want {
		if resp, body := g.post(path, `{"model":"`+model+`","input":"x"}`); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	if !slices.Equal(paths, want) || g.scorer.asked.Load() != 0 {
		t.Errorf("engine got %v, scorer asked %d times", paths, g.scorer.asked.Load())
	}
	g.idle()
}
