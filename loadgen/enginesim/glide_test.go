package enginesim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// told is what a driver of one core sees of a request.
type told struct{ first, last, tokens int64 }

// driveGliding runs a core over requests that come at random steps, some from a prefill engine, some aborted, in a cache that
// is now and then too small, and returns when each request's first and last token came, and a line for each step.
func driveGliding(interval int, seed uint64, blocks int) (all map[string]told, steps []string) {
	c := NewCore(CoreOptions{Profile: Reference, BlockSize: 16, Blocks: blocks, MaxSeqs: 24, TokenBudget: 256, Noise: .1,
		Seed: seed, NoPrefixCache: true, Interval: interval})
	rng := rand.New(rand.NewPCG(seed, 3))
	all = map[string]told{}
	var r StepResult
	now, sent := time.Duration(0), 0
	var live []string
	for range 4000 {
		for rng.Float64() < .06 {
			q := &Request{ID: fmt.Sprint(sent), Prompt: make([]uint32, 1+rng.IntN(300)), MaxTokens: 1 + rng.IntN(60),
				Remote: rng.IntN(3) == 0, Pin: rng.IntN(5) == 0}
			if c.Submit(q) == nil {
				live = append(live, q.ID)
			}
			sent++
		}
		if len(live) > 0 && rng.Float64() < .01 {
			i := rng.IntN(len(live))
			c.Abort(live[i])
		}
		ran := c.Step(&r)
		now += r.Duration
		s := c.Stats()
		steps = append(steps, fmt.Sprintf("%v %v %+v %d %d %d", ran, r.Duration, r.Load, s.Free, s.Preemptions, s.GeneratedTokens))
		for i := range r.Outputs {
			o := &r.Outputs[i]
			t := all[o.Request.ID]
			if o.Index == 0 {
				t.first = int64(now)
			}
			if t.last, t.tokens = int64(now), int64(o.Index+1); o.Finished {
				c.Unpin(o.Request.ID)
				t.tokens = -t.tokens
			}
			all[o.Request.ID] = t
		}
		for i := range r.Pulls {
			c.Pulled(r.Pulls[i].Request.ID)
		}
	}
	return all, steps
}

// An engine that tells of few tokens takes the same steps, with the same loads, times, blocks and preemptions, and every
// request's first and last token come when they would.
func TestGlidingChangesNothing(t *testing.T) {
	for seed := range uint64(12) {
		blocks := []int{4000, 120, 60}[seed%3]
		want, steps := driveGliding(1, seed, blocks)
		for _, interval := range []int{2, 7, 16} {
			got, same := driveGliding(interval, seed, blocks)
			for i := range steps {
				if steps[i] != same[i] {
					t.Fatalf("seed %d, interval %d, step %d: %s, want %s", seed, interval, i, same[i], steps[i])
				}
			}
			ended := 0
			for id, w := range want {
				g := got[id]
				if w.tokens < 0 { // at its end
					ended++
				}
				if g.first != w.first || w.tokens < 0 && g != w {
					t.Fatalf("seed %d, interval %d, request %s: %+v, want %+v", seed, interval, id, g, w)
				}
			}
			if ended < 100 {
				t.Fatalf("seed %d: %d requests ended", seed, ended)
			}
		}
	}
}

func BenchmarkGlide(b *testing.B) {
	for _, interval := range []int{1, 16} {
		b.Run(fmt.Sprint(interval), func(b *testing.B) {
			c := NewCore(CoreOptions{Profile: Reference, BlockSize: 64, NoPrefixCache: true, Interval: interval, Noise: .03})
			var r StepResult
			tokens := int64(0)
			for i := 0; tokens < int64(b.N); i++ {
				for c.Stats().Running+c.Stats().Waiting < 60 {
					_ = c.Submit(&Request{ID: fmt.Sprint(i, c.Stats().Waiting), Prompt: make([]uint32, 2000), MaxTokens: 1000})
				}
				c.Step(&r)
				tokens = c.Stats().GeneratedTokens
			}
		})
	}
}
