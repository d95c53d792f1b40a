package enginesim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
)

// What holds in any run, whatever is preempted and evicted.
func TestEventsAreTheCache(t *testing.T) {
	for seed := range uint64(8) {
		c := NewCore(CoreOptions{Profile: slow, Blocks: 60 + 40*int(seed), MaxModelLen: 600, TokenBudget: 256, Seed: seed})
		f := newFold()
		index := prefix.NewEngine(prefix.EngineOptions{Pool: "p", BlockSize: 16, Blocks: c.Options().Blocks})
		finished := 0
		arrivals := mixed(seed, 300)
		for i := range arrivals {
			arrivals[i].r.Remote = i%9 == 0
		}
		drive(t, c, arrivals, func(_, _ time.Duration, r *StepResult) {
			f.add(t, r.Events)
			if cached := c.Cached(); !maps.Equal(cached, f.copies) {
				t.Fatalf("cache holds %d hashes, events add up to %d", len(cached), len(f.copies))
			}
			if copies := fromIndex(index, r.Events); !maps.Equal(copies, f.copies) {
				t.Fatalf("prefix.Engine holds %d hashes, the cache %d", len(copies), len(f.copies))
			}
			if s := c.Stats(); f.stored-f.removed != s.Cached {
				t.Fatalf("%d stored, %d removed, %d mapped", f.stored, f.removed, s.Cached)
			}
			for _, o := range r.Outputs {
				if n := len(o.Request.Prompt); !o.Request.Remote && (o.Hit%16 != 0 || o.Hit > (n-1)/16*16) {
					t.Fatalf("hit of %d tokens in a prompt of %d", o.Hit, n)
				}
				if o.Finished {
					finished++
				}
			}
		})
		s := c.Stats()
		if finished != 300 || s.Finished != 300 || s.Free != s.Blocks {
			t.Fatalf("at the end: %d of 300 finished, %d of %d blocks free", finished, s.Free, s.Blocks)
		}
		for i := range c.pool.blocks[:s.Blocks] {
			if c.pool.blocks[i].ref != 0 {
				t.Fatalf("block %d has %d users at the end", i, c.pool.blocks[i].ref)
			}
		}
		if seed == 0 && (s.Preemptions == 0 || f.removed == 0 || s.Hits == 0) {
			t.Fatalf("the run was to preempt, evict and hit: %+v", s)
		}
		if !c.Reset() || len(c.Cached()) != 0 {
			t.Fatal("an idle engine did not reset")
		}
	}
}

// A hit is the longest prefix without a gap that the events left, and everything else is computed.
func TestHitsAreTheLongestPrefix(t *testing.T) {
	c := NewCore(CoreOptions{Blocks: 64, MaxModelLen: 600, Seed: 3, Hash: QuickHash{}})
	f := newFold()
	for i, a := range mixed(7, 2000) {
		if err := c.Submit(a.r); err != nil {
			t.Fatal(err)
		}
		s := c.ids[a.r.ID]
		longest, all := 0, 0
		for i, h := range s.hashes[:(len(a.r.Prompt)-1)/16] {
			if f.copies[h] > 0 {
				all++
				if longest == i {
					longest++
				}
			}
		}
		if all != longest {
			t.Fatalf("request %d: %d blocks cached, but only %d without a gap", i, all, longest)
		}
		computed := 0
		var r StepResult
		for c.Step(&r) {
			f.add(t, r.Events)
			computed += r.Load.PrefillTokens
			for _, o := range r.Outputs {
				if o.Hit != longest*16 {
					t.Fatalf("request %d: hit %d, longest prefix %d", i, o.Hit, longest*16)
				}
				if o.Index == 0 && o.Hit+computed != len(a.r.Prompt) {
					t.Fatalf("request %d: hit %d and computed %d of %d", i, o.Hit, computed, len(a.r.Prompt))
				}
			}
		}
	}
	// Eviction never leaves a gap, so make one.
	if err := c.Submit(&Request{ID: "whole", Prompt: sequential(9000, 100), MaxTokens: 1}); err != nil {
		t.Fatal(err)
	}
	var r StepResult
	c.Step(&r)
	id, _ := c.pool.lookup(r.Events[len(r.Events)-1].Hashes[2])
	c.pool.uncache(id)
	if err := c.Submit(&Request{ID: "gap", Prompt: sequential(9000, 100), MaxTokens: 1}); err != nil {
		t.Fatal(err)
	}
	if c.Step(&r); r.Outputs[0].Hit != 32 {
		t.Fatalf("hit of %d tokens past a gap behind 32", r.Outputs[0].Hit)
	}
}

// Whatever waits at the end of scheduling could not have been scheduled.
func TestNothingWaitsThatCouldRun(t *testing.T) {
	c := NewCore(CoreOptions{Profile: slow, Blocks: 90, MaxModelLen: 600, TokenBudget: 200, MaxSeqs: 7})
	arrivals := mixed(11, 400)
	now := time.Duration(0)
	checked := map[string]int{}
	for {
		for len(arrivals) > 0 && arrivals[0].at <= now {
			_ = c.Submit(arrivals[0].r)
			arrivals = arrivals[1:]
		}
		if c.Idle() {
			if len(arrivals) == 0 {
				break
			}
			now = arrivals[0].at
			continue
		}
		before := c.stats.Preemptions
		c.events = c.events[:0]
		load := c.schedule()
		used := 0
		for _, s := range c.step {
			used += s.n
		}
		switch left := c.o.TokenBudget - used; {
		case used == 0:
			t.Fatal("a step computes nothing")
		case len(c.waiting) == 0:
		case left == 0:
			checked["budget"]++
		case len(c.running) == c.o.MaxSeqs:
			checked["seats"]++
		case c.stats.Preemptions > before:
			checked["preemption"]++
		default:
			s := c.waiting[0]
			idle := c.find(s)
			if c.lacks(s, min(s.length-s.done, left))+idle <= c.pool.free {
				t.Fatalf("the head waits though it fits")
			}
			s.rewind()
			checked["blocks"]++
		}
		now += c.duration(load)
		c.update(&StepResult{})
	}
	for _, why := range []string{"budget", "seats", "preemption", "blocks"} {
		if checked[why] == 0 {
			t.Errorf("nothing ever waited for %s: %v", why, checked)
		}
	}
}

// Little's law: the mean number running is the completion rate times the time in service.
func TestLittlesLaw(t *testing.T) {
	c := NewCore(CoreOptions{Profile: Qwen3_32B_TP2_H100, Hash: QuickHash{}, MaxSeqs: 40, Seed: 5})
	rnd := rand.New(rand.NewPCG(5, 5))
	var arrivals []arrival
	at := time.Duration(0)
	came := map[string]time.Duration{}
	for i := range 3000 {
		at += time.Duration(rnd.ExpFloat64() * 0.2 * float64(time.Second))
		r := &Request{ID: fmt.Sprint(i), MaxTokens: 50 + rnd.IntN(300), Prompt: make([]uint32, 200+rnd.IntN(2000))}
		for j := range r.Prompt {
			r.Prompt[j] = rnd.Uint32N(VocabSize)
		}
		came[r.ID] = at
		arrivals = append(arrivals, arrival{at, r})
	}
	var area, inSystem, inQueue float64
	finished, queued := 0, 0
	admitted := map[string]bool{}
	end := drive(t, c, arrivals, func(begin, end time.Duration, r *StepResult) {
		area += float64(len(c.step)) * (end - begin).Seconds()
		for _, s := range c.step {
			if !admitted[s.req.ID] {
				admitted[s.req.ID] = true
				inQueue += (begin - came[s.req.ID]).Seconds()
			}
		}
		queued = max(queued, len(c.waiting))
		for _, o := range r.Outputs {
			if o.Finished {
				finished++
				inSystem += (end - came[o.Request.ID]).Seconds()
			}
		}
	})
	running := area / end.Seconds()
	little := float64(finished) / end.Seconds() * (inSystem - inQueue) / float64(finished)
	if math.Abs(running/little-1) > 0.01 || finished != 3000 || queued < 5 || running < 5 {
		t.Fatalf("mean running %.3f, by Little's law %.3f (%d finished, at most %d queued)", running, little, finished, queued)
	}
}

// Chunks of a long prompt.
func TestChunkingClosedForm(t *testing.T) {
	p := Qwen3_32B_TP2_H100
	c := NewCore(CoreOptions{Profile: p})
	var want time.Duration
	for i := range 4 {
		ctx := float64(i * 8192)
		want += time.Duration((p.Base + p.Prefill*8192 + p.Pairs*8192*(ctx+4096)/1e6) * 1e6)
	}
	got := drive(t, c, []arrival{{0, &Request{ID: "a", Prompt: sequential(0, 32768), MaxTokens: 1}}}, nil)
	if got != want {
		t.Fatalf("time to first token %v, four chunks take %v", got, want)
	}

	c = NewCore(CoreOptions{Profile: p})
	var arrivals []arrival
	for i := range 100 {
		arrivals = append(arrivals, arrival{0, &Request{ID: fmt.Sprint(i), Prompt: sequential(100_000+i*100, 16), MaxTokens: 60}})
	}
	arrivals = append(arrivals, arrival{300 * time.Millisecond, &Request{ID: "long", Prompt: sequential(0, 32768), MaxTokens: 1}})
	longest := time.Duration(0)
	drive(t, c, arrivals, func(begin, end time.Duration, r *StepResult) {
		if r.Load.PrefillTokens+r.Load.Decodes > 8192 {
			t.Fatalf("%d tokens in a step", r.Load.PrefillTokens+r.Load.Decodes)
		}
		longest = max(longest, end-begin)
	})
	if least := p.StepTime(Load{PrefillTokens: 8092, Decodes: 100, TokenPairs: 8092 * 4046}); longest < least {
		t.Fatalf("longest inter-token latency %v, a chunk beside 100 decodes takes %v", longest, least)
	}
}

func TestPreemptionRecomputesAndCountsHitsOnce(t *testing.T) {
	c := NewCore(CoreOptions{Blocks: 8})
	for i, n := range []int{38, 80, 5} { // two run at first; the last waits, and is not to overtake the preempted one
		if err := c.Submit(&Request{ID: fmt.Sprint(i), Prompt: sequential(1000*i, 40), MaxTokens: n, Answer: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	var r StepResult
	var order []string
	tokens := map[string][]uint32{}
	for c.Step(&r) {
		for _, o := range r.Outputs {
			if o.Index != len(tokens[o.Request.ID]) {
				t.Fatalf("token %d of %s came as number %d", len(tokens[o.Request.ID]), o.Request.ID, o.Index)
			}
			tokens[o.Request.ID] = append(tokens[o.Request.ID], c.Token(o.Request, o.Index))
			if o.Finished {
				order = append(order, o.Request.ID)
			}
		}
	}
	s := c.Stats()
	if s.Preemptions == 0 || s.Hits != 0 || s.Queries != 120 || s.GeneratedTokens != 123 || s.PromptTokens != 120 {
		t.Fatalf("%+v", s)
	}
	if fmt.Sprint(order) != "[0 2 1]" {
		t.Fatalf("finished in order %v: the second is to be preempted and to stay ahead of the third", order)
	}
	for i, got := range []string{"0", "1", "2"} {
		for j, token := range tokens[got] {
			if token != OutputToken(0, uint64(i), j) {
				t.Fatalf("token %d of %s changed", j, got)
			}
		}
	}
}

func TestResetIsToldWithTheNextStep(t *testing.T) {
	c, f := NewCore(CoreOptions{Blocks: 16}), newFold()
	var r StepResult
	_ = c.Submit(&Request{ID: "a", Prompt: sequential(0, 64), MaxTokens: 2})
	c.Step(&r)
	f.add(t, r.Events)
	if c.Reset() {
		t.Fatal("reset while blocks are in use")
	}
	c.Step(&r)
	if !c.Reset() || len(c.Cached()) != 0 || c.Step(&r) {
		t.Fatal("no reset of an idle engine")
	}
	_ = c.Submit(&Request{ID: "a", Prompt: sequential(0, 64), MaxTokens: 1})
	c.Step(&r)
	if f.add(t, r.Events); r.Events[0].Kind != kvevent.Cleared || r.Outputs[0].Hit != 0 || !maps.Equal(f.copies, c.Cached()) {
		t.Fatalf("%+v", r)
	}
}

// Copies of one content are found oldest first, and each leaves on its own.
func TestCopies(t *testing.T) {
	p := newPool(4)
	for range 3 {
		p.cache(p.take(), 7)
	}
	p.cache(p.take(), 8)
	for _, step := range []struct {
		release, found int32
		copies         int
	}{{1, 0, 2}, {0, 2, 1}, {3, 2, 1}, {2, none, 0}} {
		p.release([]int32{step.release})
		if id := p.take(); id != step.release {
			t.Fatalf("block %d came back, not %d", id, step.release)
		}
		id, ok := p.lookup(7)
		if (ok && id != step.found) || ok != (step.found != none) || p.copies()[7] != step.copies {
			t.Fatalf("after the eviction of %d: found %d (%v), %d copies", step.release, id, ok, p.copies()[7])
		}
	}
	if len(p.evicted) != 4 || p.mapped != 0 || p.reset() {
		t.Fatalf("%+v", p)
	}
}

func TestRefusedAtArrival(t *testing.T) {
	c := NewCore(CoreOptions{Blocks: 8, MaxModelLen: 1000})
	if err := c.Submit(&Request{ID: "a", Prompt: sequential(0, 128), MaxTokens: 1}); !errors.Is(err, ErrTooLong) {
		t.Fatalf("a prompt that leaves no room for a token: %v", err)
	}
	if err := c.Submit(&Request{ID: "a", MaxTokens: 1}); !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
	if err := c.Submit(&Request{ID: "a", Prompt: sequential(0, 127), MaxTokens: 100}); err != nil {
		t.Fatal(err)
	}
	if err := c.Submit(&Request{ID: "a", Prompt: sequential(0, 2), MaxTokens: 1}); !errors.Is(err, ErrDuplicate) {
		t.Fatal(err)
	}
	var r StepResult
	if !c.Step(&r) || len(r.Outputs) != 1 || !r.Outputs[0].Finished || c.Step(&r) {
		t.Fatalf("the context's end is to end the answer: %+v", r)
	}
}

func TestAbortFreesBlocks(t *testing.T) {
	c := NewCore(CoreOptions{Blocks: 16})
	var r StepResult
	for i := range 3 {
		_ = c.Submit(&Request{ID: fmt.Sprint(i), Prompt: sequential(1000*i, 100), MaxTokens: 10})
	}
	c.Step(&r)
	if s := c.Stats(); s.Running != 2 || s.Waiting != 1 || s.Free != 2 {
		t.Fatalf("%+v", s)
	}
	for _, id := range []string{"2", "0", "1"} {
		if !c.Abort(id) || c.Abort(id) {
			t.Fatalf("abort %s", id)
		}
	}
	if s := c.Stats(); s.Free != 16 || s.Cached != 12 || !c.Idle() {
		t.Fatalf("%+v", s)
	}
}

// A request prepared by one core is hashed anew by another.
func TestPreparedElsewhere(t *testing.T) {
	a, b := NewCore(CoreOptions{Hash: QuickHash{1}}), NewCore(CoreOptions{Hash: QuickHash{2}})
	var r StepResult
	hashes := map[uint64]bool{}
	for _, c := range []*Core{a, b, NewCore(CoreOptions{Hash: QuickHash{1}})} {
		q := &Request{ID: "a", Prompt: sequential(0, 40), MaxTokens: 1}
		a.Prepare(q)
		if err := c.Submit(q); err != nil {
			t.Fatal(err)
		}
		c.Step(&r)
		hashes[r.Events[0].Hashes[1]] = true
	}
	if len(hashes) != 2 {
		t.Fatalf("%d different hashes of two seeds", len(hashes))
	}
}

// A later prompt that contains an answer finds it in the cache.
func TestConversationExtendsThePrefix(t *testing.T) {
	c := NewCore(CoreOptions{})
	prompt := sequential(0, 50)
	for turn := range 5 {
		r := &Request{ID: fmt.Sprint(turn), Prompt: prompt, MaxTokens: 33, Answer: uint64(turn)}
		if err := c.Submit(r); err != nil {
			t.Fatal(err)
		}
		next := append([]uint32(nil), prompt...)
		var step StepResult
		for c.Step(&step) {
			for _, o := range step.Outputs {
				next = append(next, c.Token(o.Request, o.Index))
				// The last token of the answer before was never computed; the prompt goes on for 7 tokens behind it.
				if want := (len(prompt) - 7 - 1) / 16 * 16; turn > 0 && o.Hit != want {
					t.Fatalf("turn %d: hit %d, want %d of %d", turn, o.Hit, want, len(prompt))
				}
			}
		}
		prompt = append(next, sequential(5000+100*turn, 7)...)
	}
}

// The same seed gives the same bytes.
func TestDeterminism(t *testing.T) {
	run := func(seed uint64) [32]byte {
		c := NewCore(CoreOptions{Profile: slow, Blocks: 120, MaxModelLen: 600, Noise: 0.03, Seed: seed})
		h := sha256.New()
		drive(t, c, mixed(1, 300), func(_, end time.Duration, r *StepResult) {
			batch := kvevent.Batch{TS: end.Seconds(), HasRank: true, Events: r.Events}
			h.Write(kvevent.Append(nil, &batch, kvevent.MapForm))
		})
		return [32]byte(h.Sum(nil))
	}
	if run(1) != run(1) {
		t.Error("two runs of one seed differ")
	}
	if run(1) == run(2) {
		t.Error("the seed changes nothing")
	}
}

func TestProfiles(t *testing.T) {
	// Peak prefill of a chunk of 8,192 tokens as published for each profile.
	for name, want := range map[string]float64{
		"qwen3-32b-tp2-h100": 456, "qwen3-32b-tp4": 262, "llama-3.1-70b-tp4": 531, "llama-3.1-8b-tp1": 191,
	} {
		p, err := ProfileByName(name)
		if err != nil {
			t.Fatal(err)
		}
		var l Load
		l.add(8192, 0, false)
		if ms := p.StepTime(l).Seconds() * 1e3; math.Abs(ms-want) > 1 {
			t.Errorf("%s: a chunk takes %.1f ms, want %.0f", name, ms, want)
		}
	}
	if _, err := ProfileByName("none"); !errors.Is(err, ErrUnknownProfile) {
		t.Error(err)
	}
	if blocks := NewCore(CoreOptions{Profile: Qwen3_32B_TP2_H100}).Options().Blocks; blocks != 19_208 {
		t.Errorf("%d blocks", blocks)
	}
}
