package policy

import (
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// roles are two decode and three prefill engines before a prompt of 8,000 tokens, idle but for twenty sequences that
// decode on each decode engine.
func roles() (decode, prefill Observation) {
	decode = Observation{PromptTokens: 8000, FirstKey: 7, Candidates: engines(2)}
	prefill = Observation{PromptTokens: 8000, FirstKey: 7, Candidates: engines(5)[2:]}
	for i := range decode.Candidates {
		c := &decode.Candidates[i]
		c.Active, c.DecodeContext = 20, 160_000
	}
	return decode, prefill
}

func TestSplitWarm(t *testing.T) {
	const local = -1
	each := func(o *Observation, change func(c *Candidate)) {
		for i := range o.Candidates {
			change(&o.Candidates[i])
		}
	}
	for _, c := range []struct {
		name            string
		change          func(decode, prefill *Observation)
		decode, prefill int // -2: any
	}{
		{"sequences decode there", func(_, _ *Observation) {}, -2, -2},
		{"to the prefill engine that holds it", func(_, p *Observation) { p.Candidates[1].Matched = 7000 }, -2, 1},
		{"not to the one with a queue", func(_, p *Observation) {
			each(p, func(c *Candidate) { c.Waiting, c.Active, c.WaitSeconds, c.OldestSeconds = 2, 2, 1, .5 })
			p.Candidates[2] = Candidate{Engine: "idle"}
		}, -2, 2},
		{"the prefill engines are congested", func(_, p *Observation) {
			each(p, func(c *Candidate) { c.Waiting, c.Active, c.WaitSeconds, c.OldestSeconds = 60, 60, 30, .5 })
		}, -2, local},
		{"nobody decodes there", func(d, _ *Observation) {
			each(d, func(c *Candidate) { c.Active, c.DecodeContext = 0, 0 })
		}, -2, local},
		{"the decode engine holds it", func(d, _ *Observation) { d.Candidates[1].Matched = 7990 }, 1, local},
		{"the decode engine that holds half gets the rest", func(d, _ *Observation) { d.Candidates[1].Matched = 4000 }, 1, -2},
		{"the other decode engine is full", func(d, _ *Observation) { d.Candidates[0].Active, d.Candidates[0].DecodeContext = 120, 900_000 }, 1, -2},
		{"both engines of role both", func(d, p *Observation) {
			each(d, func(c *Candidate) { c.Both = true })
			each(p, func(c *Candidate) { c.Both = true })
		}, -2, local},
		{"one of role both computes for a decode engine", func(_, p *Observation) { each(p, func(c *Candidate) { c.Both = true }) }, -2, -2},
		{"KV takes long", func(_, p *Observation) { p.Now = 1e9 }, -2, local}, // the test's mark for a slow network
	} {
		decode, prefill := roles()
		c.change(&decode, &prefill)
		var s State
		if prefill.Now == 1e9 {
			prefill.Now, s.transfer = 0, 1000
		}
		pair := Split(Warm, &s, &decode, &prefill, 1, Pair{})
		if c.decode >= 0 && pair.Decode.Index != c.decode || c.prefill != -2 && pair.Prefill.Index != c.prefill || c.prefill == -2 && pair.Prefill.Index < 0 {
			t.Errorf("%s: %+v", c.name, pair)
		}
		if len(pair.Decode.Costs) != 2 || pair.Decode.Reason == "" || pair.Prefill.Index >= 0 && (len(pair.Prefill.Costs) != 3 || pair.Prefill.Reason == "") {
			t.Errorf("%s: says %+v", c.name, pair)
		}
	}
}

func TestSplitOfPoliciesWithoutPrices(t *testing.T) {
	for _, name := range []Name{RoundRobin, LeastTokens, Random} {
		for _, c := range []struct {
			prompt, held int
			remote       bool
		}{{8000, 0, true}, {8000, 7500, false}, {8000, 7488, true}, {511, 0, false}, {512, 0, true}} {
			decode, prefill := roles()
			decode.PromptTokens, prefill.PromptTokens = c.prompt, c.prompt
			for i := range decode.Candidates {
				decode.Candidates[i].Matched = c.held
			}
			if pair := Split(name, &State{}, &decode, &prefill, 99, Pair{}); pair.Prefill.Index >= 0 != c.remote {
				t.Errorf("%s, %d of %d held: %+v", name, c.held, c.prompt, pair)
			}
		}
	}
}

// Whatever is seen, the pair is of candidates, the same again, and leaves what it read as it was.
func TestSplitIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		decode := Observation{PromptTokens: rapid.IntRange(0, 100_000).Draw(t, "prompt"), BlockSize: rapid.SampledFrom([]int{0, 16, 64}).Draw(t, "block")}
		prefill := decode
		for _, o := range []*Observation{&decode, &prefill} {
			o.Candidates = engines(rapid.IntRange(1, 5).Draw(t, "engines"))
			for i := range o.Candidates {
				c := &o.Candidates[i]
				c.Active = rapid.IntRange(0, 200).Draw(t, "active")
				c.Waiting = rapid.IntRange(0, c.Active).Draw(t, "waiting")
				c.WaitSeconds = rapid.Float64Range(0, 100).Draw(t, "wait")
				c.DecodeContext = rapid.IntRange(0, 1_000_000).Draw(t, "context")
				c.Matched = rapid.IntRange(0, 100_000).Draw(t, "matched")
				c.Coming = rapid.IntRange(0, 100_000).Draw(t, "coming")
				c.Both = rapid.Bool().Draw(t, "both")
			}
		}
		var s State
		was := [2]Observation{decode, prefill}
		was[0].Candidates, was[1].Candidates = append([]Candidate(nil), decode.Candidates...), append([]Candidate(nil), prefill.Candidates...)
		name := rapid.SampledFrom([]Name{Warm, LeastTokens, RoundRobin, Random}).Draw(t, "name")
		a, b := Split(name, &s, &decode, &prefill, 5, Pair{}), Split(name, &s, &decode, &prefill, 5, Pair{})
		if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(was, [2]Observation{decode, prefill}) {
			t.Fatalf("%+v, then %+v", a, b)
		}
		if a.Decode.Index < 0 || a.Decode.Index >= len(decode.Candidates) || a.Prefill.Index < -1 || a.Prefill.Index >= len(prefill.Candidates) {
			t.Fatalf("%+v", a)
		}
		if a.Prefill.Index >= 0 && !Splittable(&decode, &decode.Candidates[a.Decode.Index], &prefill.Candidates[a.Prefill.Index]) {
			t.Fatalf("split although it must not: %+v", a)
		}
	})
}

func TestTransfersAreLearned(t *testing.T) {
	var s State
	if got, want := s.TransferSeconds(5000), .001+5000*262_144/70e9; math.Abs(got-want) > 1e-12 {
		t.Fatalf("%v before any was seen, want %v", got, want)
	}
	for range 300 {
		s.Transferred(.131, 5000)
		s.Transferred(.0026, 63)
	}
	if got := s.TransferSeconds(5000); got < .05 || got > .14 {
		t.Errorf("%v after many of .131 s", got)
	}
	for range 300 {
		s.Transferred(-1, 5000)
	}
	if got := s.TransferSeconds(5000); got <= 0 || math.IsNaN(got) {
		t.Errorf("%v after nonsense", got)
	}
}
