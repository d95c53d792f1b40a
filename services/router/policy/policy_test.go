package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func engines(n int) []Candidate {
	cs := make([]Candidate, n)
	for i := range cs {
		cs[i] = Candidate{Engine: fmt.Sprintf("engine-%d", i), Blocks: 20_000}
	}
	return cs
}

func TestWarm(t *testing.T) {
	for _, c := range []struct {
		name   string
		prompt int
		change func(cs []Candidate)
		want   int
		reason Reason
	}{
		{"holds the prefix", 8000, func(cs []Candidate) { cs[2].Matched = 7000 }, 2, Sticky},
		{"a longer prefix beats a shorter one", 8000, func(cs []Candidate) { cs[1].Matched, cs[2].Matched = 4000, 7000 }, 2, Sticky},
		{"queue outweighs a short match", 8000, func(cs []Candidate) {
			cs[0].Matched, cs[0].Active, cs[0].Waiting, cs[0].WaitSeconds, cs[0].Uncached = 1000, 4, 4, 3, 40_000
			cs[1].ColdWork = 1
			cs[3].ColdWork = 1
		}, 2, NearTie},
		{"a queue outweighs half of the prompt", 8000, func(cs []Candidate) {
			cs[0].Matched, cs[0].Active, cs[0].Waiting, cs[0].WaitSeconds, cs[0].Uncached = 6000, 4, 4, 3, 40_000
			cs[2].Matched = 1000
		}, 2, CheaperElsewhere},
		{"one of those that hold as much", 8000, func(cs []Candidate) {
			cs[0].Matched, cs[0].ColdWork, cs[3].Matched = 6000, 1, 6000
		}, 3, NearTie},
		{"what it would evict is worth more", 8000, func(cs []Candidate) {
			for i := range cs {
				cs[i].Mapped, cs[i].Evicted = 20_000, true
			}
			cs[1].Matched, cs[1].Active, cs[1].Waiting, cs[1].WaitSeconds, cs[1].OldestSent = 6000, 1, 1, .35, 1
		}, 1, EvictPrice},
		{"approximately", 8000, func(cs []Candidate) { cs[1].Matched, cs[1].Guessed = 6000, true }, 1, Approximation},
		{"a long match outweighs a short queue", 8000, func(cs []Candidate) {
			cs[0].Matched, cs[0].Active, cs[0].Waiting, cs[0].WaitSeconds, cs[0].Uncached = 7800, 1, 1, .05, 900
		}, 0, Sticky},
		{"follows a prefix under way", 8000, func(cs []Candidate) {
			cs[1].Matched, cs[1].Active, cs[1].Waiting, cs[1].WaitContext, cs[1].Uncached, cs[1].ColdWork = 7990, 1, 1, 8000, 8000, 8000
			cs[1].WaitSeconds = (&State{}).PrefillSeconds(0, 8000)
			cs[1].OldestSeconds = cs[1].WaitSeconds
		}, 1, Sticky},
		{"least cold work among equals", 100, func(cs []Candidate) {
			for i := range cs {
				cs[i].ColdWork = float64(10 - i)
			}
		}, 3, NearTie},
		{"keeps off a busy batch", 8000, func(cs []Candidate) {
			for i := range cs {
				cs[i].Active, cs[i].DecodeContext = 100, 700_000
			}
			cs[1].Active, cs[1].DecodeContext = 20, 140_000
		}, 1, ColdSpread},
		{"a cold prompt goes where room is", 8000, func(cs []Candidate) {
			for i := range cs {
				cs[i].Active, cs[i].DecodeContext, cs[i].Mapped = 60, 400_000, 20_000
			}
			cs[2].Mapped = 2_000
		}, 2, ColdSpread},
	} {
		o := Observation{PromptTokens: c.prompt, FirstKey: 7, Candidates: engines(4)}
		c.change(o.Candidates)
		got := Pick(Warm, &State{}, &o, 0, nil)
		if got.Index != c.want || got.Reason != c.reason {
			t.Errorf("%s: chose %d (%s), costs %v", c.name, got.Index, got.Reason, got.Costs)
		}
	}
}

func TestTheOnlyEngineIsChosenAsSuch(t *testing.T) {
	o := Observation{PromptTokens: 100, Candidates: engines(1)}
	if got := Pick(Warm, &State{}, &o, 0, nil); got.Reason != OnlyOne {
		t.Error(got.Reason)
	}
}

func TestAHotPrefixIsCopiedCheaply(t *testing.T) {
	o := Observation{PromptTokens: 8000, Candidates: engines(4)}
	for i := range o.Candidates {
		c := &o.Candidates[i]
		c.Active, c.DecodeContext, c.Mapped, c.Evicted = 50, 350_000, 20_000, true
	}
	o.Candidates[0].Matched = 7000
	cold := Pick(Warm, &State{}, &o, 0, nil).Costs
	o.Sharing = 100
	hot := Pick(Warm, &State{}, &o, 0, nil).Costs
	if hot[1]-hot[0] > (cold[1]-cold[0])/2 {
		t.Errorf("a copy costs %v more when hot, %v when not", hot[1]-hot[0], cold[1]-cold[0])
	}
}

// TestCostOfAnIdleEngine is the formula by hand: 8000 tokens, nothing cached, nothing else running.
func TestCostOfAnIdleEngine(t *testing.T) {
	o := Observation{PromptTokens: 8000, Candidates: engines(1)}
	got := Pick(Warm, &State{}, &o, 0, nil).Costs[0]
	want := (0.04705*8000+1.70*8000*4000/1e6)/1000 + 1*13.99/1000
	if math.Abs(got-want) > 1e-12 {
		t.Errorf("cost %v, want %v", got, want)
	}
	o.Now, o.Candidates[0] = 10, Candidate{
		Engine: "e", Active: 1, Waiting: 1, Uncached: 1000, WaitContext: 1000,
		WaitSeconds: 2, OldestSent: 9.5, OldestSeconds: 2, LastFirst: 3,
	}
	s := State{}
	alone := warmParts(&s, &o)
	if wait := alone[0]; math.Abs(wait-1.5) > 1e-12 {
		t.Errorf("wait %v, want 1.5: the oldest has run for half a second", wait)
	}
}

func warmParts(s *State, o *Observation) []float64 {
	f := look(s, o, 0)
	return []float64{f.queue(o, &o.Candidates[0], s.Rate(o.Candidates[0].Engine).Prefill, 8000, .014)}
}

func TestOtherPolicies(t *testing.T) {
	o := Observation{PromptTokens: 100, Candidates: engines(3)}
	for turn := range 7 {
		o.Turn = uint64(turn)
		if got := Pick(RoundRobin, &State{}, &o, 0, nil).Index; got != turn%3 {
			t.Errorf("turn %d: engine %d", turn, got)
		}
	}
	o.Candidates[0].Active, o.Candidates[1].WaitContext, o.Candidates[2].Active = 3, 299, 4
	if got := Pick(LeastTokens, &State{}, &o, 0, nil); got.Index != 1 || !slices.Equal(got.Costs, []float64{300, 299, 400}) {
		t.Errorf("least tokens: %+v", got)
	}
	var seen [3]int
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		seen[Pick(Random, &State{}, &o, r.Uint64(), nil).Index]++
	}
	if slices.Min(seen[:]) < 60 {
		t.Errorf("random: %v of 300", seen)
	}
}

func TestTiesAreSpreadByThePromptsKey(t *testing.T) {
	var seen [8]int
	o := Observation{PromptTokens: 100, Candidates: engines(8)}
	r := rand.New(rand.NewPCG(5, 5))
	for range 800 {
		o.FirstKey = r.Uint64()
		a := Pick(Warm, &State{}, &o, 1, nil).Index
		seen[a]++
		if b := Pick(Warm, &State{}, &o, 2, nil).Index; a != b {
			t.Fatalf("key %d: two routers chose %d and %d", o.FirstKey, a, b)
		}
	}
	if slices.Min(seen[:]) < 60 {
		t.Errorf("of 800 keys: %v", seen)
	}
	o.FirstKey = 0
	if Pick(Warm, &State{}, &o, 1, nil).Index == Pick(Warm, &State{}, &o, 3, nil).Index &&
		Pick(Warm, &State{}, &o, 1, nil).Index == Pick(Warm, &State{}, &o, 4, nil).Index &&
		Pick(Warm, &State{}, &o, 1, nil).Index == Pick(Warm, &State{}, &o, 5, nil).Index {
		t.Error("prompts without a key all go to one engine")
	}
}

func TestParse(t *testing.T) {
	if n, err := Parse(""); n != Warm || err != nil {
		t.Error(n, err)
	}
	if _, err := Parse("best"); err == nil || !strings.Contains(err.Error(), "least-tokens") {
		t.Error(err)
	}
}

func TestStateLearnsOutputLength(t *testing.T) {
	var s State
	for range 2000 {
		s.Finished(50)
	}
	if math.Abs(s.Output-50) > 1 {
		t.Errorf("mean output %v, want 50", s.Output)
	}
}

func TestStateLearnsSlowEnginesAndPoolsTheRest(t *testing.T) {
	var s State
	if s.Rate("e0") != (Rate{1, 1}) {
		t.Errorf("rate %v before anything was seen", s.Rate("e0"))
	}
	r := rand.New(rand.NewPCG(4, 4))
	truth := []Rate{{.50, .80}, {.52, .78}, {.48, .82}, {1.5, 2}}
	for range 300 {
		for i, rate := range truth {
			decode, prefill := r.Float64(), r.Float64()/2
			s.Took(fmt.Sprintf("e%d", i), decode, prefill, rate.Decode*decode+rate.Prefill*prefill)
		}
	}
	for engine, want := range map[string]Rate{"e0": {.5, .8}, "e1": {.5, .8}, "e2": {.5, .8}, "e3": {1.5, 2}, "new": {.5, .8}} {
		if r := s.Rate(engine); math.Abs(r.Prefill-want.Prefill) > .05 || math.Abs(r.Decode-want.Decode) > .05 {
			t.Errorf("%s: rate %v, want %v", engine, r, want)
		}
	}
	if s.Rate("e0") != s.Rate("e1") {
		t.Error("engines near the median differ: ties would be lost")
	}
	o := Observation{PromptTokens: 4000, Candidates: []Candidate{{Engine: "e3"}, {Engine: "e0"}}}
	if Pick(Warm, &s, &o, 0, nil).Index != 1 {
		t.Error("the slow engine is chosen")
	}
	s.Forget("e3")
	if r := s.Rate("e3"); math.Abs(r.Prefill-.5) > .05 {
		t.Errorf("forgotten engine has rate %v", r)
	}
	before := s.Rate("e0")
	s.Took("e0", 0, 1, math.Inf(1))
	if r := s.Rate("e0"); r.Prefill > before.Prefill*1.25 {
		t.Errorf("one wild observation moved the rate from %v to %v", before, r)
	}
}

// Where decode and prefill always come in the same shares, nobody can tell them apart: both are then as slow.
func TestRatesThatCannotBeToldApartAreAlike(t *testing.T) {
	var s State
	for range 300 {
		s.Took("e", 2, 2, 6)
		s.Took("f", 2, 2, 6)
	}
	if r := s.Rate("e"); math.Abs(r.Prefill-1.5) > .05 || math.Abs(r.Decode-1.5) > .05 {
		t.Errorf("rate %v, want 1.5 each", r)
	}
}

// The median is found again only when a rate has moved. What is used is never far from what was learned.
// The rates in use against all of them sorted anew.
func TestRatesInUseAreThoseLearned(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	var s State
	for i := range 6000 {
		slow := 1 + float64(i/2000) // of all engines: 1, 2, 3
		engine := fmt.Sprintf("e%d", r.IntN(9))
		if r.IntN(50) == 0 {
			s.Forget(engine)
		} else {
			s.Took(engine, r.Float64(), r.Float64(), slow*math.Exp(.2*r.NormFloat64()))
		}
		var prefill, decode []float64
		for _, f := range s.fits {
			prefill, decode = append(prefill, f.rate.Prefill), append(decode, f.rate.Decode)
		}
		slices.Sort(prefill)
		slices.Sort(decode)
		want := Rate{1, 1}
		if n := len(prefill); n > 0 {
			want = Rate{prefill[(n-1)/2], decode[(n-1)/2]}
		}
		if got := s.Rate("unknown"); got != want {
			t.Fatalf("step %d: median %v, want %v", i, got, want)
		}
		for engine, f := range s.fits {
			want := Rate{pooled(f.rate.Prefill, want.Prefill), pooled(f.rate.Decode, want.Decode)}
			if got := s.Rate(engine); got != want {
				t.Fatalf("step %d: %s has rate %v, want %v", i, engine, got, want)
			}
		}
		if len(s.prefills) != len(s.fits) || len(s.decodes) != len(s.fits) {
			t.Fatalf("step %d: %d engines, %d and %d rates", i, len(s.fits), len(s.prefills), len(s.decodes))
		}
	}
}

func drawObservation(t *rapid.T) Observation {
	n := rapid.IntRange(1, 12).Draw(t, "engines")
	o := Observation{
		Now: 1000, PromptTokens: rapid.IntRange(0, 130_000).Draw(t, "prompt"),
		FirstKey: rapid.Uint64().Draw(t, "key"), Turn: rapid.Uint64().Draw(t, "turn"), Candidates: engines(n),
	}
	for i := range o.Candidates {
		c := &o.Candidates[i]
		c.Matched = rapid.IntRange(0, 140_000).Draw(t, "matched")
		c.Waiting = rapid.IntRange(0, 20).Draw(t, "waiting")
		c.Active = c.Waiting + rapid.IntRange(0, 200).Draw(t, "decoding")
		c.DecodeContext = (c.Active - c.Waiting) * 1000
		c.WaitContext = c.Waiting * rapid.IntRange(1, 9000).Draw(t, "waiting prompt")
		c.Uncached = c.WaitContext / 2
		c.WaitSeconds = rapid.Float64Range(0, 20).Draw(t, "wait")
		c.OldestSeconds = c.WaitSeconds / 2
		c.OldestSent = 1000 - rapid.Float64Range(0, 5).Draw(t, "age")
		c.Blocks = rapid.IntRange(0, 40_000).Draw(t, "blocks")
		c.Mapped = rapid.IntRange(0, c.Blocks).Draw(t, "mapped")
		c.Usage = rapid.Float64Range(0, 1).Draw(t, "usage")
		c.Evicted = rapid.Bool().Draw(t, "evicted")
		c.ColdWork = float64(rapid.IntRange(0, 3).Draw(t, "cold work"))
	}
	return o
}

func TestPickIsDeterministicAndPicksACandidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, r := drawObservation(t), rapid.Uint64().Draw(t, "random")
		for _, name := range []Name{Warm, RoundRobin, LeastTokens, Random} {
			a := Pick(name, &State{}, &o, r, nil)
			b := Pick(name, &State{}, &o, r, make([]float64, 3))
			if a.Index < 0 || a.Index >= len(o.Candidates) || a.Index != b.Index || a.Reason != b.Reason || !slices.Equal(a.Costs, b.Costs) {
				t.Fatalf("%s: %+v, then %+v", name, a, b)
			}
			for _, cost := range a.Costs {
				if math.IsNaN(cost) || math.IsInf(cost, 0) || cost < 0 {
					t.Fatalf("%s: costs %v", name, a.Costs)
				}
			}
		}
		if got := Pick(Warm, &State{}, &Observation{}, r, nil); got.Index != -1 {
			t.Fatalf("chose %d of none", got.Index)
		}
	})
}

func TestMoreMatchedNeverCostsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawObservation(t)
		i := rapid.IntRange(0, len(o.Candidates)-1).Draw(t, "engine")
		before := Pick(Warm, &State{}, &o, 0, nil).Costs[i]
		o.Candidates[i].Matched += rapid.IntRange(0, 20_000).Draw(t, "more")
		if after := Pick(Warm, &State{}, &o, 0, nil).Costs[i]; after > before*(1+1e-12) {
			t.Fatalf("cost rose from %v to %v", before, after)
		}
	})
}

// A cache that a prompt would just fill is no other engine for a prompt that it would just not fill.
func TestAlmostFullCachesAreNoExceptionToThat(t *testing.T) {
	o := Observation{PromptTokens: 8000, Candidates: engines(2)}
	c := &o.Candidates[0]
	c.Active, c.DecodeContext, c.Usage = 100, 300_000, 1-300./20_000
	for before := math.Inf(1); c.Matched < o.PromptTokens; c.Matched += 16 {
		cost := Pick(Warm, &State{}, &o, 0, nil).Costs[0]
		if cost > before {
			t.Fatalf("%d tokens held: cost rose from %v to %v", c.Matched, before, cost)
		}
		before = cost
	}
}

func TestThePickedEngineIsNeverFarFromTheCheapest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawObservation(t)
		got := Pick(Warm, &State{}, &o, 0, nil)
		if got.Costs[got.Index] > slices.Min(got.Costs)+followTie {
			t.Fatalf("chose %d of %v", got.Index, got.Costs)
		}
	})
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{8, 100} {
		b.Run(fmt.Sprintf("engines=%d", n), func(b *testing.B) {
			o := Observation{PromptTokens: 8000, FirstKey: 1, Candidates: engines(n)}
			var s State
			costs := make([]float64, 0, n)
			b.ReportAllocs()
			for b.Loop() {
				costs = Pick(Warm, &s, &o, 1, costs).Costs
			}
		})
	}
}

func BenchmarkTook(b *testing.B) {
	for _, n := range []int{8, 100} {
		b.Run(fmt.Sprintf("engines=%d", n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(6, 6))
			var s State
			names := engines(n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Took(names[i%n].Engine, .5, .1, .6*(1+.05*r.NormFloat64()))
			}
		})
	}
}
