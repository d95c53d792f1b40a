package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// small is a workload of a few groups whose prompts fill small caches several times.
func small(seed uint64) Workload {
	return staged{"small", groups{12, 3, 640, 200, 40}, true, 60, []phase{{20, 2}, {30, 6}, {60, 6}}}.workload(seed)
}

// tight is a fleet whose caches hold about a third of small's prompts each.
func tight(policy string) Options {
	p := enginesim.Qwen3_32B_TP2_H100
	p.KVTokens = 6400
	return Options{Pods: 3, Profile: p, Policy: policy, Seed: 1}
}

func run(t *testing.T, o Options, w Workload) (*Result, *world) {
	t.Helper()
	o, err := o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	f, err := newWorld(o, &w)
	if err != nil {
		t.Fatal(err)
	}
	f.run(&w)
	return f.result(&w), f
}

func TestEveryPolicyAnswersEveryRequest(t *testing.T) {
	for _, policy := range Policies() {
		w := small(1)
		r, f := run(t, tight(policy), w)
		m, offered := r.Metrics, 0
		for i, stage := range w.Stages {
			if r.Stages[i].Offered != len(stage.Sessions) {
				t.Errorf("%s: stage %d has %d answers of %d", policy, i, r.Stages[i].Offered, len(stage.Sessions))
			}
			if !stage.WarmUp {
				offered += len(stage.Sessions)
			}
		}
		if m.Offered != offered || m.Completed != offered || m.Shed != 0 {
			t.Errorf("%s: %+v, offered %d", policy, m, offered)
		}
		if m.HitRatio <= 0 || m.HitRatio >= 1 || m.TTFTP50 > m.TTFTP90 || m.TTFTP90 > m.TTFTP99 || m.OutputTokS <= 0 {
			t.Errorf("%s: %+v", policy, m)
		}
		for _, e := range f.engines {
			if s := e.core.Stats(); s.Running+s.Waiting != 0 || s.Free != s.Blocks {
				t.Errorf("%s: engine %d ends with %+v", policy, e.number, s)
			}
		}
	}
}

// At the end, when all events are visible, the index says of every prompt what the engines' caches hold.
func TestTheIndexEndsAsTheCachesAre(t *testing.T) {
	w := small(2)
	_, f := run(t, tight("warm"), w)
	indexIsTheCaches(t, f, &w)
}

func indexIsTheCaches(t *testing.T, f *world, w *Workload) {
	t.Helper()
	x, hash := f.router.index, enginesim.QuickHash{}
	checked := 0
	for _, stage := range w.Stages {
		for _, s := range stage.Sessions {
			tokens := s.Turns[0].Prompt.Append(nil)
			got := x.ask(len(tokens), blockkey.Keys(nil, blockkey.Scope{Pool: poolID, BlockSize: 16}, tokens, nil))
			for i, e := range f.engines {
				held, digest, cached := 0, hash.Root(), e.core.Cached()
				for at := 0; at+16 <= len(tokens); at += 16 {
					digest = hash.Next(nil, digest, tokens[at:at+16], nil)
					if cached[blockkey.Low64(digest)] == 0 {
						break
					}
					held++
				}
				checked += held
				if int(got.Engines[i].Gpu) != held {
					t.Fatalf("engine %d: the index says %d blocks, the cache %d", i, got.Engines[i].Gpu, held)
				}
			}
		}
	}
	if checked == 0 {
		t.Fatal("no cache holds anything")
	}
}

func TestRunsAreReproducible(t *testing.T) {
	for _, policy := range []string{"warm", "precise-2026", "power-of-two"} {
		a, _ := run(t, tight(policy), small(3))
		b, _ := run(t, tight(policy), small(3))
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: two runs differ: %+v, %+v", policy, a.Metrics, b.Metrics)
		}
		o := tight(policy)
		o.Seed = 2
		if c, _ := run(t, o, small(3)); reflect.DeepEqual(a, c) {
			t.Errorf("%s: another seed changes nothing", policy)
		}
	}
}

// A lone engine without noise computes one prompt in the time that the formula gives.
func TestTimesAreTheFormula(t *testing.T) {
	p := enginesim.Qwen3_32B_TP2_H100
	w := Workload{Stages: []Stage{{Sessions: []Session{one(time.Second, Prompt{{1, 3000}}, 3)}}}}
	r, _ := run(t, Options{Pods: 1, Noise: -1, FrontEnd: 100 * time.Millisecond}, w)
	prefill := p.StepTime(enginesim.Load{PrefillTokens: 3000, TokenPairs: 3000 * 1500})
	want := (prefill + 100*time.Millisecond).Seconds()
	if math.Abs(r.Metrics.TTFTMean-want) > 1e-6 {
		t.Errorf("TTFT %v, want %v", r.Metrics.TTFTMean, want)
	}
	gap := (p.StepTime(enginesim.Load{Decodes: 1, ContextTokens: 3001}) + p.StepTime(enginesim.Load{Decodes: 1, ContextTokens: 3002})).Seconds() / 2
	if math.Abs(r.Metrics.TPOTMean-gap) > 1e-6 {
		t.Errorf("TPOT %v, want %v", r.Metrics.TPOTMean, gap)
	}
	if want := time.Second + prefill + 2*time.Duration(gap*1e9); (r.Virtual - want).Abs() > time.Microsecond {
		t.Errorf("the last answer comes at %v, want %v", r.Virtual, want)
	}
}

// atMost holds how many requests are under way whenever one is sent.
func atMost(t *testing.T, answers []answer, most int) {
	t.Helper()
	for _, a := range answers {
		n := 0
		for _, b := range answers {
			if b.sent <= a.sent && a.sent < b.last {
				n++
			}
		}
		if n > most {
			t.Fatalf("%d requests under way at %v", n, a.sent)
		}
	}
}

func TestAClosedStageKeepsItsConcurrency(t *testing.T) {
	stage := Stage{Concurrency: 4}
	for i := range 10 {
		var s Session
		for n := range 3 {
			s.Turns = append(s.Turns, Turn{Gap: time.Second, Prompt: Prompt{{uint64(i + 1), 200 * (n + 1)}}, Output: 20})
		}
		stage.Sessions = append(stage.Sessions, s)
	}
	_, f := run(t, tight("warm"), Workload{Stages: []Stage{stage}})
	if len(f.answers) != 30 {
		t.Fatalf("%d answers, want 30", len(f.answers))
	}
	atMost(t, f.answers, 4)
	if f.answers[0].sent != time.Second {
		t.Errorf("the first turn is sent at %v, want after its gap", f.answers[0].sent)
	}
}

func TestInFlightIsBounded(t *testing.T) {
	w := small(4)
	w.InFlight = 7
	_, f := run(t, tight("random"), w)
	atMost(t, f.answers, 7)
}

// What cannot be replayed leaves the index wrong, lag leaves it late: both cost hits, neither costs answers.
func TestLossAndLagAreInjected(t *testing.T) {
	base, _ := run(t, tight("precise-2026"), small(5))
	lossy := tight("precise-2026")
	lossy.Loss, lossy.NoReplay = .5, true
	late := tight("precise-2026")
	late.Lag = 5 * time.Second
	replayed := tight("precise-2026")
	replayed.Loss, replayed.Lag = .5, time.Second
	for name, o := range map[string]Options{"loss": lossy, "lag": late, "replayed loss": replayed} {
		r, _ := run(t, o, small(5))
		if r.Metrics.HitRatio >= base.Metrics.HitRatio || r.Metrics.Completed != base.Metrics.Completed {
			t.Errorf("%s: %+v, without it %+v", name, r.Metrics, base.Metrics)
		}
	}
}

// A lost batch and those behind it are visible one lag after the batch that tells of the gap, in order.
func TestGapsAreReplayed(t *testing.T) {
	o := tight("warm")
	o.Loss, o.Lag = .3, 100*time.Millisecond
	o, err := o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	w := small(2)
	f, err := newWorld(o, &w)
	if err != nil {
		t.Fatal(err)
	}
	e := f.engines[0]
	step := func(at time.Duration, chance float64, hash uint64) {
		f.clock.now = at
		f.o.Loss = chance
		e.step.Events = []kvevent.Event{{Kind: kvevent.Stored, Hashes: []uint64{hash}, Tokens: make([]uint32, 16), BlockSize: 16, Medium: "GPU",
			Parent: hash - 1, HasParent: hash > 1, HasGroup: true, SpecKind: "full_attention"}}
		f.announce(e)
	}
	ms := time.Millisecond
	step(10*ms, 0, 1)
	step(20*ms, 1, 2)  // lost
	step(30*ms, 1, 3)  // lost
	step(40*ms, 0, 4)  // tells of it
	step(50*ms, 0, 5)  // held back
	step(400*ms, 0, 6) // in time again
	var at []time.Duration
	seen := 0
	for {
		do, ok := f.clock.next()
		if !ok {
			break
		}
		seen += len(do.batch.runs)
		f.router.index.apply(do.batch)
		at = append(at, f.clock.now)
		if info, _ := f.router.index.x.Engine(f.router.index.ids[0]); info.VisibleGPU != len(at) {
			t.Errorf("%d blocks are visible after batch %d", info.VisibleGPU, len(at))
		}
	}
	if want := []time.Duration{110 * ms, 240 * ms, 240 * ms, 240 * ms, 240 * ms, 500 * ms}; !slices.Equal(at, want) {
		t.Errorf("visible at %v, want %v", at, want)
	}
}

func TestASlowEngineGetsLess(t *testing.T) {
	o := tight("warm")
	o.Slow = map[int]float64{1: 3}
	r, _ := run(t, o, small(6))
	for _, i := range []int{0, 2} {
		if r.PerEngine[1].PrefillTokens*3 > r.PerEngine[i].PrefillTokens*2 {
			t.Errorf("the slow engine computes %d prompt tokens, engine %d %d", r.PerEngine[1].PrefillTokens, i, r.PerEngine[i].PrefillTokens)
		}
	}
}

func TestARequestThatCannotFitIsRefused(t *testing.T) {
	w := Workload{Stages: []Stage{{Sessions: []Session{one(0, Prompt{{1, 10_000}}, 5), one(0, Prompt{{2, 100}}, 5)}}}}
	r, _ := run(t, tight("warm"), w)
	if r.Metrics.Offered != 2 || r.Metrics.Completed != 1 || r.Metrics.Shed != 1 {
		t.Errorf("%+v", r.Metrics)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	w := small(1)
	for _, o := range []Options{{Pods: -1}, {Loss: 2}, {KV: -1}, {Policy: "best"}, {Prefill: 1, Decode: 1, Policy: "warm-no-evict"}} {
		if _, err := Run(o, &w, nil); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestPromptsAreThoseOfTheTrace(t *testing.T) {
	trace := workload.Generate(time.Minute, 1)
	w := FromTrace(trace, 2)
	for i, r := range trace.Requests {
		s := w.Stages[0].Sessions[i]
		if s.At != r.At/2 || s.Turns[0].Output != r.Output {
			t.Fatalf("request %d is %+v, want %+v at half its time", i, s, r)
		}
		if want := (workload.Tokens{}).Append(nil, r); !reflect.DeepEqual(s.Turns[0].Prompt.Append(nil), want) {
			t.Fatalf("request %d has other tokens than the trace", i)
		}
	}
}

// Ideal against a plain list of blocks in order of use.
func TestIdealIsAnLRUCache(t *testing.T) {
	trace := workload.Generate(10*time.Minute, 2)
	w := FromTrace(trace, 1)
	if got, want := Ideal(&w, math.MaxInt32, 16), trace.Stats().TokenHitRatio; math.Abs(got-want) > .002 {
		t.Errorf("without bound: %.4f, the trace says %.4f", got, want)
	}
	last := math.Inf(1)
	for _, tokens := range []int{8 << 20, 1 << 20, 200_000, 20_000, 16} {
		got := Ideal(&w, tokens, 16)
		if got > last {
			t.Errorf("%d tokens: %.4f, more than a larger cache", tokens, got)
		}
		last = got
	}
	if last > .02 {
		t.Errorf("a cache of one block hits %.4f", last)
	}
}

func TestBlocksOfPromptsAreEqualAsTokensAre(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[uint64]string{}
	for range 300 {
		var p Prompt
		for range 1 + rng.IntN(4) {
			p = append(p, Segment{uint64(rng.IntN(3)), 10 * (1 + rng.IntN(4))})
		}
		tokens := p.Append(nil)
		for i, key := range p.blocks(16) {
			head := fmt.Sprint(tokens[:16*(i+1)])
			if known, ok := seen[key]; ok && known != head {
				t.Fatalf("one name for two blocks: %v", p)
			}
			seen[key] = head
		}
	}
}

// Requests under way are sampled, and what is kept does not grow with the run.
func TestLoadOfEnginesIsBounded(t *testing.T) {
	var l loadLog
	core := enginesim.NewCore(enginesim.CoreOptions{})
	for i := range 3 {
		if err := core.Submit(&enginesim.Request{ID: fmt.Sprint(i), Prompt: []uint32{1}, MaxTokens: 1}); err != nil {
			t.Fatal(err)
		}
	}
	engines := []*engine{{core: core}, {core: enginesim.NewCore(enginesim.CoreOptions{})}}
	for n := 1; n <= 5000; n++ {
		l.sample(engines)
		if len(l.sums[0]) > maxSamples {
			t.Fatalf("%d samples after %d scrapes", len(l.sums[0]), n)
		}
	}
	got := l.done(time.Second)
	if got.Top != 3 || got.Step != 32 || len(got.Engines[0]) != 5000/32 {
		t.Errorf("top %v, step %v, %d samples", got.Top, got.Step, len(got.Engines[0]))
	}
	for i := range got.Engines[0] {
		if got.At(0, i) != 3 || got.At(1, i) != 0 {
			t.Fatalf("sample %d: %v and %v", i, got.At(0, i), got.At(1, i))
		}
	}
}

// Points lose no request, and a trace's are sorted by rate.
func TestPointsHaveAllRequests(t *testing.T) {
	staged, _ := run(t, tight("warm"), small(1))
	if n := len(staged.ByLoad); n != 2 || math.Abs(staged.ByLoad[1].Rate-60) > 15 || staged.ByLoad[1].OutputTokS == 0 {
		t.Errorf("%+v", staged.ByLoad)
	}
	w := FromTrace(workload.Generate(10*time.Minute, 1), 1)
	traced, _ := run(t, Options{Policy: "random", Seed: 1}, w)
	sum, last := 0, 0.
	for _, p := range traced.ByLoad {
		if p.Rate < last || p.TTFTP50 > p.TTFTP90 {
			t.Errorf("%+v after a rate of %v", p, last)
		}
		sum, last = sum+p.Offered, p.Rate
	}
	if sum != traced.Metrics.Offered || len(traced.ByLoad) != 20/leastWindows {
		t.Errorf("%d requests in %d points, %d were offered", sum, len(traced.ByLoad), traced.Metrics.Offered)
	}
}

func TestGroupsOfWorkloads(t *testing.T) {
	s, _ := Find(Catalogue(), "W1")
	g, err := s.WithGroups(3, 2)
	if err != nil || g.Arrivals == s.Arrivals || g.Fleet.FrontEnd != s.Fleet.FrontEnd || g.Scale != s.Scale {
		t.Fatalf("%+v, %v", g, err)
	}
	heads, prompts := map[Segment]bool{}, map[Segment]bool{}
	w := g.Make(1)
	for _, stage := range w.Stages {
		for _, session := range stage.Sessions {
			p := session.Turns[0].Prompt
			heads[p[0]], prompts[p[1]] = true, true
		}
	}
	if len(heads) != 3 || len(prompts) != 6 {
		t.Errorf("%d groups and %d prompts", len(heads), len(prompts))
	}
	if _, err := s.WithGroups(-1, 0); err == nil {
		t.Error("less than no groups are accepted")
	}
	agents, _ := Find(Catalogue(), "W7")
	if _, err := agents.WithGroups(3, 0); err == nil {
		t.Error("agents have no groups")
	}
}

func TestPartsAreTheFirstOfEachStage(t *testing.T) {
	w := small(1)
	part := w.Part(.1)
	for i, stage := range part.Stages {
		all := w.Stages[i].Sessions
		if n := len(stage.Sessions); n != (len(all)+9)/10 || stage.Sessions[n-1].At != all[n-1].At {
			t.Errorf("stage %d has %d sessions of %d", i, n, len(all))
		}
	}
	if w.Length() < 13*time.Second || w.Length() > 14*time.Second {
		t.Errorf("the workload lasts %v, want 14 s", w.Length())
	}
}
