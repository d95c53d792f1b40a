package router

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// The rows of docs/faults.md that no other test holds. Time that would have to pass is told to the watch for engines that
// hang, and not waited for.

const streamBody = `{"model":"` + model + `","prompt":"x","stream":true}`

// hung is an engine that accepts everything and says nothing more than first, nor to probes, until its client leaves.
func hung(asked *atomic.Int64, first ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if asked.Add(1); len(first) > 0 {
				sse(first...)(w, r)
			} else {
				_, _ = io.Copy(io.Discard, r.Body)
			}
		}
		<-r.Context().Done()
	}
}

// begin sends a streaming request and returns where its answer will come.
func (g *rig) begin() <-chan string {
	answer := make(chan string, 1)
	go func() {
		r, _ := http.NewRequestWithContext(g.t.Context(), http.MethodPost, g.url+"/v1/completions", strings.NewReader(streamBody))
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answer <- fmt.Sprintf("%d %s %s %v", resp.StatusCode, resp.Header.Get(engineHeader), body, err)
	}()
	return answer
}

// later is the watch as it will be after a time.
func (g *rig) later(d time.Duration) { g.rt.newWatch().Look(g.t.Context(), time.Now().Add(d)) }

// TestAHungEngineIsLeftBeforeTheFirstByte holds that a request moves on from an engine that hangs as a whole, also where
// its header has come already, and that no other request is sent there.
func TestAHungEngineIsLeftBeforeTheFirstByte(t *testing.T) {
	for name, first := range map[string][]string{"before its header": nil, "after its header": {""}} {
		g := newRig(t, Config{Policy: "round-robin"})
		var asked, answered atomic.Int64
		g.addEngine("a", hung(&asked, first...))
		g.addEngine("b", func(w http.ResponseWriter, r *http.Request) { answered.Add(1); sse(event1, doneMark)(w, r) })
		answer := g.begin()
		g.eventually("asked", func() bool { return asked.Load() == 1 })
		g.later(4 * time.Second)
		select {
		case got := <-answer:
			t.Errorf("%s: given up at once: %s", name, got)
		default:
		}
		g.later(8 * time.Second) // suspected: the probe takes its two seconds
		for range 4 {
			if resp, _ := g.post("/v1/completions", streamBody); resp.Header.Get(engineHeader) != "b" {
				t.Errorf("%s: a suspected engine gets requests", name)
			}
		}
		if got, want := <-answer, "200 b "+event1+doneMark+" <nil>"; got != want {
			t.Errorf("%s: client got %q", name, got)
		}
		g.idle()
		if r := g.mail.last(); asked.Load() != 1 || answered.Load() != 5 || r.Retries != 1 || r.Chosen != "b" {
			t.Errorf("%s: asked %d and %d times, record %+v", name, asked.Load(), answered.Load(), r)
		}
		if n := len(g.logs.lines("engine ejected")); n != 1 {
			t.Errorf("%s: %d log lines", name, n)
		}
	}
}

// An engine whose HTTP server says that it is well, while no stream gets anything, hangs all the same.
func TestAHungCoreIsLeftThoughItsServerAnswers(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	var asked, probed atomic.Int64
	stall := hung(&asked, "")
	g.addEngine("a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			probed.Add(1)
			return
		}
		stall(w, r)
	})
	g.addEngine("b", sse(event1, doneMark))
	answer := g.begin()
	g.eventually("asked", func() bool { return asked.Load() == 1 })
	g.later(8 * time.Second)
	g.eventually("probed", func() bool { return probed.Load() == 1 })
	if resp, _ := g.post("/v1/completions", streamBody); resp.Header.Get(engineHeader) != "b" {
		t.Error("the probe alone makes up for the stream that waits")
	}
	select {
	case got := <-answer:
		t.Errorf("given up though it may be slow: %s", got)
	default:
	}
	g.later(45 * time.Second)
	if got := <-answer; got != "200 b "+event1+doneMark+" <nil>" {
		t.Errorf("client got %q", got)
	}
	g.idle()
}

func TestAStallInTheMiddleEndsInAnErrorEvent(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	var asked, others atomic.Int64
	g.addEngine("a", hung(&asked, event1))
	answer := g.begin()
	g.eventually("the first byte", func() bool {
		l := g.rt.pool(poolRecord.ID).Loads()["id-a"]
		return l.Active == 1 && l.Waiting == 0
	})
	g.addEngine("b", func(w http.ResponseWriter, r *http.Request) { others.Add(1); sse(event1, doneMark)(w, r) })
	g.later(0) // it sees the first byte
	g.later(55 * time.Second)
	select {
	case got := <-answer:
		t.Errorf("ended early: %s", got)
	default:
	}
	g.later(65 * time.Second)
	got := <-answer
	rest, ok := strings.CutPrefix(got, "200 a "+event1)
	if !ok || !strings.Contains(rest, `data: {"error":{"message":`) || strings.Contains(rest, "[DONE]") {
		t.Errorf("client got %q", got)
	}
	g.idle()
	if others.Load() != 0 || asked.Load() != 1 {
		t.Error("tried again after the first byte")
	}
	if r := g.mail.last(); r.Outcome != outcomeLost {
		t.Errorf("record %+v", r)
	}
}

func TestADeathBetweenHeaderAndFirstByteIsTriedElsewhere(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	g.addEngine("a", func(w http.ResponseWriter, r *http.Request) {
		sse("")(w, r)
		panic(http.ErrAbortHandler)
	})
	g.addEngine("b", sse(event1, doneMark))
	if resp, answer := g.post("/v1/completions", streamBody); resp.StatusCode != 200 || answer != event1+doneMark {
		t.Errorf("%d %q", resp.StatusCode, answer)
	}
	g.idle()
}

func TestASlowScorerHoldsNobodyUp(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("a", plain(okAnswer))
	g.addScorer()
	g.rt.scorers.Least = 20 * time.Millisecond
	release := make(chan struct{})
	defer close(release)
	g.scorer.say(func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		<-release
		return &scorerv1.ScoreResponse{Unknown: true}, nil
	})
	resp, answer := g.post("/v1/completions", `{"model":"`+model+`","prompt":"x"}`)
	if resp.StatusCode != 200 || answer != okAnswer {
		t.Errorf("%d %s", resp.StatusCode, answer)
	}
	g.idle()
	if r := g.mail.last(); !r.Unknown {
		t.Errorf("record %+v", r)
	}
}

// TestAPartialAnswerIsUsedForWhatItSays has an index shard away: engines it answers for are judged by it, the others by
// what the router itself sent there.
func TestAPartialAnswerIsUsedForWhatItSays(t *testing.T) {
	g := newRig(t, Config{})
	for _, name := range []string{"a", "b", "c"} {
		g.addEngine(name, plain(okAnswer))
	}
	g.addScorer()
	g.scorer.say(func(r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		resp, err := scoreOf(200, map[string]uint32{"id-b": 150})(r)
		resp.Partial = true
		return resp, err
	})
	body := `{"model":"` + model + `","prompt":"` + strings.Repeat("the same words ", 800) + `"}`
	if resp, _ := g.post("/v1/completions", body); resp.StatusCode != 200 || resp.Header.Get(engineHeader) != "b" {
		t.Errorf("%d from %s", resp.StatusCode, resp.Header.Get(engineHeader))
	}
	g.idle()
	if r := g.mail.last(); !r.Partial || r.Unknown || r.CachedPredicted != 2400 {
		t.Errorf("record %+v", r)
	}
}

// metricsPage is an engine's /metrics, which counts a token at each look.
func metricsPage(looks *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		n := looks.Add(1)
		fmt.Fprintf(w, "vllm:num_requests_waiting{engine=\"0\"} 3\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:generation_tokens_total{engine=\"0\"} %d\n", n)
	}
}

// TestOneSlowMetricsPageStopsNothing scrapes an engine that answers, one that never does, and one that talks nonsense;
// what the first says of its work counts as a sign of life.
func TestOneSlowMetricsPageStopsNothing(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin", Scrape: 10 * time.Millisecond})
	var looks, slow, nonsense, asked atomic.Int64
	page, stall := metricsPage(&looks), hung(&asked, event1)
	g.addEngine("a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			page(w, r)
			return
		}
		stall(w, r)
	})
	g.addEngine("b", func(_ http.ResponseWriter, r *http.Request) { slow.Add(1); <-r.Context().Done() })
	g.addEngine("c", func(w http.ResponseWriter, r *http.Request) { nonsense.Add(1); _, _ = io.WriteString(w, "<html>") })
	answer := g.begin()
	g.eventually("asked", func() bool { return asked.Load() == 1 })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.rt.newScraper().Run(ctx) }()
	g.eventually("looks", func() bool { return looks.Load() > 20 && nonsense.Load() > 3 })
	if n := slow.Load(); n != 1 {
		t.Errorf("the slow one is asked %d times at once", n)
	}
	before := time.Now()
	g.eventually("a sign of life", func() bool {
		probe, _ := g.rt.pool(poolRecord.ID).Watch(before.Add(5*time.Second + time.Since(before)))
		return len(probe) == 0 && looks.Load() > 40
	})
	if n := len(g.logs.lines("engine's metrics cannot be read")); n != 1 {
		t.Errorf("%d log lines for one page of nonsense", n)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	g.later(0)
	g.later(3 * time.Minute)
	<-answer
	g.idle()
}
