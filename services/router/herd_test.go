package router

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/policy"
)

// TestAHerdOfEqualColdPromptsStaysTogether sends equal prompts at once, none of them in any cache yet: the first
// choice is booked before the next, so that the others follow it; also where a score comes too late.
func TestAHerdOfEqualColdPromptsStaysTogether(t *testing.T) {
	const requests, engines = 8, 8
	for _, c := range []struct {
		policy string
		least  int // engines that get something
		most   int
	}{{"warm", 1, 2}, {"round-robin", engines, engines}} {
		g := newRig(t, Config{Policy: c.policy})
		var wait sync.WaitGroup
		release := make(chan struct{})
		for i := range engines {
			g.addEngine(fmt.Sprintf("e%d", i), func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-release
				sse(event1, doneMark)(w, r)
			})
		}
		g.addScorer()
		g.scorer.say(scoreOf(200, nil))
		var mu sync.Mutex
		got := map[string]int{}
		for i := range requests {
			wait.Go(func() {
				body := fmt.Sprintf(`{"model":%q,"prompt":%q,"stream":true,"seed":%d}`, model, strings.Repeat("the same ", 1400), i)
				resp, err := http.Post(g.url+"/v1/completions", "application/json", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				mu.Lock()
				defer mu.Unlock()
				got[resp.Header.Get("X-Warmpath-Engine")]++
			})
		}
		g.eventually("all booked", func() bool { return len(g.logs.lines("Got pod scores")) == requests })
		close(release)
		wait.Wait()
		if len(got) < c.least || len(got) > c.most {
			t.Errorf("%s: %d requests went to %v", c.policy, requests, got)
		}
		g.idle()
	}
}

// TestABurstGrowsOverFewEngines books 48 equal cold prompts at one instant: they fill one engine until its queue costs
// more than to compute the prompt once again elsewhere.
func TestABurstGrowsOverFewEngines(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := newPool(poolRecord.ID, policy.Warm, 1, now)
	view, used, keys := viewOf(16), map[string]int{}, keysOf(1, 200)
	var live []*reservation
	for i := range 48 {
		r, d := p.reserve(view, wishOf(keys, nil, true), now)
		if live = append(live, r); i < 8 && len(used) > 1 {
			t.Errorf("request %d: %v", i, used)
		}
		used[d.engineID]++
	}
	if len(used) > 4 {
		t.Errorf("48 equal prompts on %d engines: %v", len(used), used)
	}
	t.Log(used)
	for _, r := range live {
		r.release(true, true)
	}
}

// view of n engines without any HTTP.
func viewOf(n int) *fleet.View {
	v := &fleet.View{Engines: map[string]fleet.Engine{}, Pools: map[string]fleet.Pool{poolRecord.ID: poolRecord}, Draining: map[string]bool{}}
	for i := range n {
		id := fmt.Sprintf("e%02d", i)
		v.Engines[id] = fleet.Engine{
			ID: id, Name: id, Pool: poolRecord.ID, Role: fleet.Both, Blocks: 10_000, BlockSize: 16, State: fleet.OK, Models: []fleet.Model{{ID: model}},
		}
	}
	return v
}

func wishOf(keys []uint64, held map[string]uint32, streams bool) *wish {
	w := &wish{
		score:   &scorerv1.ScoreResponse{PromptTokens: uint32(len(keys)*16 + 1), BlockSize: 16, Keys: keys},
		engines: map[string]*scorerv1.EngineScore{}, streams: streams, model: model, without: map[string]bool{},
	}
	for e, n := range held {
		w.engines[e] = &scorerv1.EngineScore{Engine: e, Gpu: n, Any: n}
		w.score.Engines = append(w.score.Engines, w.engines[e])
	}
	return w
}

func keysOf(seed uint64, n int) []uint64 {
	r := rand.New(rand.NewPCG(seed, 0))
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = r.Uint64()
	}
	return keys
}

// TestAPrefixThatOneEngineCannotServeIsCopied holds hot prompts against the same load without them: the share of the
// traffic that one prefix has makes its copies cheap.
func TestAPrefixThatOneEngineCannotServeIsCopied(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := newPool(poolRecord.ID, policy.Warm, 1, now)
	view, keys := viewOf(4), keysOf(1, 400)
	for i := range 40 {
		p.reserve(view, wishOf(append(slices.Clone(keys), keysOf(uint64(i)+10, 20)...), map[string]uint32{"e00": 400}, true), now)
	}
	hot := wishOf(keys, map[string]uint32{"e00": 400}, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.observe(hot, p.usable(hot, now), now)
	if p.seen.Sharing != 40 {
		t.Errorf("%d share the head, want 40", p.seen.Sharing)
	}
	other := wishOf(keysOf(2, 400), map[string]uint32{"e00": 400}, true)
	p.observe(other, p.usable(other, now), now)
	if p.seen.Sharing != 0 {
		t.Errorf("%d share the head of another prompt", p.seen.Sharing)
	}
}

// TestTheLedgerTeachesRates streams from an engine that is three times slower than the profile, and one as it says.
func TestTheLedgerTeachesRates(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := newPool(poolRecord.ID, policy.RoundRobin, 1, now)
	view := viewOf(2)
	for i := range 400 {
		r, _ := p.reserve(view, wishOf(keysOf(uint64(i), 400), nil, true), now)
		slow := map[string]float64{"e00": 1, "e01": 3}[r.engine.ID]
		now = now.Add(time.Duration((r.steps + slow*r.seconds) * float64(time.Second)))
		r.firstByte(now)
		for range 20 {
			step := slow * p.state.StepSeconds(1, r.prompt)
			now = now.Add(time.Duration(step * float64(time.Second)))
			r.token(1, time.Duration(step*float64(time.Second)))
		}
		r.release(true, true)
	}
	for id, want := range map[string]float64{"e00": 1, "e01": 3} {
		if r := p.state.Rate(id); r.Prefill < want*.95 || r.Prefill > want*1.05 || r.Decode < want*.95 || r.Decode > want*1.05 {
			t.Errorf("%s: rate %v, want %v", id, r, want)
		}
	}
}

// TestLedgerAgainstModel drives a pool with random requests and compares every row with sums over the live ones.
func TestLedgerAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	now := time.Unix(50_000, 0)
	p := newPool("p", policy.Warm, 1, now)
	p.id = poolRecord.ID
	view := viewOf(5)
	var live []*reservation
	for step := range 4000 {
		now = now.Add(time.Duration(r.IntN(40)) * time.Millisecond)
		switch r.IntN(5) {
		case 0, 1:
			keys := keysOf(uint64(r.IntN(20)), 1+r.IntN(100))
			res, d := p.reserve(view, wishOf(keys, map[string]uint32{"e01": uint32(r.IntN(len(keys)))}, r.IntN(2) == 0), now)
			if res == nil || d.engineID != res.row.engine.ID || res.cached+res.uncached != res.prompt || res.uncached < 1 {
				t.Fatalf("step %d: %+v", step, res)
			}
			live = append(live, res)
		case 2:
			if len(live) > 0 {
				live[r.IntN(len(live))].firstByte(now)
			}
		case 3:
			if len(live) > 0 {
				if one := live[r.IntN(len(live))]; one.first {
					one.token(r.IntN(5), time.Duration(r.IntN(30))*time.Millisecond)
				}
			}
		case 4:
			if i := r.IntN(len(live) + 1); i < len(live) {
				live[i].release(live[i].first, true)
				live[i].release(false, false)
				live = slices.Delete(live, i, i+1)
			}
			if r.IntN(200) == 0 {
				view = viewOf(3 + r.IntN(4)) // engines come and go while requests run
			}
		}
		checkRows(t, p, live)
	}
	for _, one := range live {
		one.release(true, true)
	}
	checkRows(t, p, nil)
	for id, w := range p.all {
		if w.active+w.uncached+w.waitContext+w.decodeContext+int(w.streamed.Load()) != 0 || w.waitSeconds != 0 {
			t.Errorf("%s keeps %+v", id, w)
		}
	}
}

func checkRows(t *testing.T, p *pool, live []*reservation) {
	t.Helper()
	type sums struct{ active, waiting, waitContext, uncached, decode, streamed int }
	want := map[*row]sums{}
	for _, r := range live {
		s := want[r.row]
		s.active++
		s.streamed += int(r.streamed)
		if r.first {
			s.decode += r.prompt
		} else {
			s.waiting++
			s.waitContext += r.prompt
			s.uncached += r.uncached
		}
		want[r.row] = s
	}
	for id, w := range p.all {
		got := sums{w.active, len(w.waiting), w.waitContext, w.uncached, w.decodeContext, int(w.streamed.Load())}
		if got != want[w] {
			t.Fatalf("%s: %+v, want %+v", id, got, want[w])
		}
		delete(want, w)
	}
	if len(want) != 0 {
		t.Fatalf("%d rows with requests were forgotten", len(want))
	}
}

func TestAnAnswerThatDoesNotStreamStopsWaitingWhenItsPrefillIsDone(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := newPool(poolRecord.ID, policy.Warm, 1, now)
	view := viewOf(1)
	whole, _ := p.reserve(view, wishOf(keysOf(1, 500), nil, false), now)
	streamed, _ := p.reserve(view, wishOf(keysOf(2, 500), nil, true), now)
	w := whole.row
	if len(w.waiting) != 2 {
		t.Fatalf("%d wait", len(w.waiting))
	}
	c := w.candidate(now, now.Add(time.Minute))
	if c.Waiting != 1 || c.Active != 2 || c.Uncached != streamed.uncached || c.DecodeContext != whole.prompt {
		t.Errorf("candidate %+v", c)
	}
	whole.release(true, true)
	streamed.release(true, true)
	if w.active != 0 || w.decodeContext != 0 {
		t.Errorf("row keeps %+v", w)
	}
}

func TestANewLifeOfAnEngineForgetsWhatWasSentToTheOldOne(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := newPool(poolRecord.ID, policy.Warm, 1, now)
	view := viewOf(1)
	q := &wish{chain: keysOf(3, 50), bytes: 50 * 512, model: model, without: map[string]bool{}}
	first, _ := p.reserve(view, q, now)
	second, _ := p.reserve(view, q, now)
	if first.cached != 0 || second.cached < 6000 {
		t.Errorf("cached %d, then %d", first.cached, second.cached)
	}
	next := viewOf(1)
	e := next.Engines["e00"]
	e.Generation = 99
	next.Engines["e00"] = e
	if third, _ := p.reserve(next, q, now); third.cached != 0 {
		t.Errorf("%d tokens cached in a new life", third.cached)
	}
}

// An engine whose bucket no shard answered for is not cold: what it was sent lately stands in.
func TestWhereNoShardAnswersTheApproximationStandsIn(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := newPool(poolRecord.ID, policy.Warm, 1, now)
	view, keys := viewOf(4), keysOf(1, 400)
	q := wishOf(keys, map[string]uint32{"e00": 0, "e01": 0, "e02": 0, "e03": 0}, true)
	q.chain = keysOf(3, 50)
	first, _ := p.reserve(view, q, now)
	first.firstByte(now)
	first.release(true, true)
	now = now.Add(time.Minute) // longer than a placement stands for the index
	unanswered := wishOf(keys, nil, true)
	unanswered.chain, unanswered.score.Partial = q.chain, true
	again, _ := p.reserve(view, unanswered, now)
	if again.engine.ID != first.engine.ID || again.cached < 6000 {
		t.Errorf("sent to %s, then to %s with %d tokens taken for cached", first.engine.ID, again.engine.ID, again.cached)
	}
	again.firstByte(now)
	again.release(true, true)
	now = now.Add(time.Minute)
	if cold, _ := p.reserve(view, q, now); cold.cached != 0 {
		t.Errorf("%d tokens taken for cached although every shard says that nothing is", cold.cached)
	}
}

func TestReportsCountSinceTheStart(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("a", plain(okAnswer))
	g.addScorer()
	g.scorer.say(scoreOf(100, map[string]uint32{"id-a": 60}))
	for range 3 {
		g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model))
	}
	g.idle()
	g.rt.sendReports()
	var r report
	raw := g.mail.sent["report."+poolRecord.ID+".r1"]
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	want := report{
		Router: "r1", Started: g.rt.started.Unix(), Pool: poolRecord.ID, Arrivals: 3, PromptTokens: 3 * 1603, UncachedTokens: 1603 - 960 + 3 + 3, // the second and third prompt count as placed
		OutputTokens: 15, Finished: 3,
	}
	load, ok := r.Engines["id-a"]
	if r.Engines = nil; !ok || load != (engineLoad{}) || fmt.Sprint(r) != fmt.Sprint(want) {
		t.Errorf("report %s", raw)
	}
	for _, field := range []string{"router", "started", "pool", "arrivals", "prompt_tokens", "uncached_tokens", "output_tokens", "queued", "inflight", "finished", "engines"} {
		if !strings.Contains(string(raw), `"`+field+`":`) {
			t.Errorf("no field %s in %s", field, raw)
		}
	}
}

func BenchmarkReserve(b *testing.B) {
	for _, n := range []int{8, 100} {
		b.Run(fmt.Sprintf("engines=%d/keys=500", n), func(b *testing.B) {
			now := time.Unix(50_000, 0)
			p := newPool(poolRecord.ID, policy.Warm, 1, now)
			view := viewOf(n)
			held := map[string]uint32{}
			for id := range view.Engines {
				held[id] = 400
			}
			q := wishOf(keysOf(1, 500), held, true)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Millisecond)
				r, _ := p.reserve(view, q, now)
				r.firstByte(now)
				r.release(true, true)
			}
		})
	}
}
