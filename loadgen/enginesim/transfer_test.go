package enginesim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// submitted is Submit that must succeed.
func submitted(t *testing.T, c *Core, r *Request) {
	t.Helper()
	if err := c.Submit(r); err != nil {
		t.Fatal(err)
	}
}

// The blocks of a prefill leg stay in use until they are unpinned, whatever else wants them; then they are cached, like
// all that was freed, and evicted after what was freed before them.
func TestPinnedBlocksStay(t *testing.T) {
	c := NewCore(CoreOptions{Blocks: 16, Hash: QuickHash{}})
	var r StepResult
	submitted(t, c, &Request{ID: "leg", Prompt: sequential(1, 100), MaxTokens: 1, Pin: true})
	for c.Step(&r) {
	}
	if s := c.Stats(); s.Finished != 1 || s.Free != 16-7 || s.Cached != 6 {
		t.Fatalf("after the leg: %+v", s)
	}
	if err := c.Submit(&Request{ID: "leg", Prompt: sequential(1, 1), MaxTokens: 1}); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("an id with pinned blocks is taken again: %v", err)
	}
	if c.Reset() {
		t.Fatal("reset while blocks are pinned")
	}
	for i := range 20 { // more than the cache holds, and one that does not fit beside the pinned blocks
		submitted(t, c, &Request{ID: fmt.Sprint(i), Prompt: sequential(1000*(i+1), 64), MaxTokens: 1})
	}
	submitted(t, c, &Request{ID: "large", Prompt: sequential(90_000, 10*16), MaxTokens: 1})
	for c.Step(&r) {
	}
	if s := c.Stats(); s.Finished != 21 || s.Waiting != 1 {
		t.Fatalf("one request should wait for pinned blocks: %+v", s)
	}
	if !c.Unpin("leg") || c.Unpin("leg") {
		t.Fatal("unpinned never or twice")
	}
	submitted(t, c, &Request{ID: "again", Prompt: sequential(1, 97), MaxTokens: 1})
	hit := -1
	for c.Step(&r) {
		for _, o := range r.Outputs {
			if o.Request.ID == "again" {
				hit = o.Hit
			}
		}
	}
	if s := c.Stats(); s.Finished != 23 || s.Free != 16 || len(c.pinned) != 0 {
		t.Fatalf("at the end: %+v", s)
	}
	if hit != 96 {
		t.Fatalf("hit %d tokens of the six full blocks that were freed last", hit)
	}
}

// A decode engine takes blocks for what it does not hold, fetches just that, and computes the last token only.
func TestADecodeEngineComputesTheLastTokenOnly(t *testing.T) {
	c := NewCore(CoreOptions{Profile: slow, Blocks: 64, Hash: QuickHash{}})
	var r StepResult
	submitted(t, c, &Request{ID: "warm", Prompt: sequential(1, 80), MaxTokens: 1})
	for c.Step(&r) {
	}
	submitted(t, c, &Request{ID: "leg", Prompt: sequential(1, 200), MaxTokens: 3, Remote: true})
	if !c.Step(&r) || r.Duration != 0 || len(r.Outputs) != 0 || len(r.Pulls) != 1 || r.Pulls[0].Tokens != 200-80 {
		t.Fatalf("the pull: %+v", r)
	}
	if c.Step(&r) || !c.Idle() || c.Stats().Free != 64-13 || c.Stats().Waiting != 1 {
		t.Fatalf("while it pulls: %+v", c.Stats())
	}
	submitted(t, c, &Request{ID: "beside", Prompt: sequential(5000, 40), MaxTokens: 2})
	if !c.Step(&r) || r.Load.PrefillTokens != 40 || len(r.Outputs) != 1 {
		t.Fatalf("nobody waits for another's pull: %+v", r)
	}
	if !c.Pulled("leg") || c.Pulled("leg") || c.Pulled("beside") {
		t.Fatal("pulled never or twice")
	}
	if !c.Step(&r) || r.Load.PrefillTokens != 1 || r.Load.TokenPairs != 199.5 || r.Load.Decodes != 1 || len(r.Events) != 1 || len(r.Events[0].Hashes) != 7 {
		t.Fatalf("the first step: %+v", r)
	}
	if i := slices.IndexFunc(r.Outputs, func(o Output) bool { return o.Request.ID == "leg" }); r.Outputs[i].Hit != 199 || r.Outputs[i].Index != 0 {
		t.Fatalf("%+v", r.Outputs[i])
	}
	for c.Step(&r) {
		if r.Load.PrefillTokens != 0 {
			t.Fatalf("computes more of the prompt: %+v", r.Load)
		}
	}
	if s := c.Stats(); s.Free != 64 || s.Finished != 3 || s.Hits != 80 || s.Queries != 320 {
		t.Fatalf("at the end: %+v", s)
	}
}

// Two engines hand prompts to each other under a cache too small for all, with legs aborted at every point: no block is
// lost, none is used twice, and everything ends.
func TestHandoverConservesBlocks(t *testing.T) {
	preemptions := int64(0)
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		p := NewCore(CoreOptions{Profile: slow, Blocks: 60, MaxModelLen: 600, TokenBudget: 128, Hash: QuickHash{}})
		d := NewCore(CoreOptions{Profile: slow, Blocks: 70, MaxModelLen: 600, TokenBudget: 128, Hash: QuickHash{}})
		var pulls []Pull
		todo, ended := mixed(seed, 300), 0
		var r StepResult
		for ended < 300 {
			if len(todo) > 0 && rnd.IntN(2) == 0 {
				leg := *todo[0].r
				leg.MaxTokens, leg.Pin, leg.Tag = 1, true, todo[0].r
				submitted(t, p, &leg)
				todo = todo[1:]
			}
			worked := p.Step(&r)
			for _, o := range r.Outputs {
				next := *o.Request.Tag.(*Request)
				next.Remote = true
				submitted(t, d, &next)
			}
			worked = d.Step(&r) || worked
			pulls = append(pulls, r.Pulls...)
			for _, o := range r.Outputs {
				if o.Finished {
					ended++
				}
			}
			if len(pulls) > 0 && (!worked || rnd.IntN(3) == 0) {
				i := rnd.IntN(len(pulls))
				id := pulls[i].Request.ID
				pulls = slices.Delete(pulls, i, i+1)
				if rnd.IntN(10) == 0 {
					ended++
					if !d.Abort(id) || !p.Abort(id) {
						t.Fatalf("seed %d: a leg of %s is unknown", seed, id)
					}
				} else if !d.Pulled(id) || !p.Unpin(id) {
					t.Fatalf("seed %d: %s was not pulled", seed, id)
				}
			} else if !worked && len(todo) == 0 && len(pulls) == 0 {
				t.Fatalf("seed %d: stuck after %d: %+v, %+v", seed, ended, p.Stats(), d.Stats())
			}
		}
		preemptions += d.Stats().Preemptions
		for i, c := range []*Core{p, d} {
			if s := c.Stats(); s.Free != s.Blocks || s.Running+s.Waiting != 0 || len(c.pinned)+c.pulling+len(c.ids) != 0 {
				t.Errorf("seed %d: engine %d keeps %+v", seed, i, s)
			}
		}
	}
	if preemptions == 0 {
		t.Error("the decode engines were to preempt")
	}
}
