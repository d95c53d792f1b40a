package ledger

import (
	"slices"
	"testing"
	"time"
)

// TestABurstGrowsOverFewEngines books 48 equal cold prompts at one instant: they fill one engine until its queue costs
// more than to compute the prompt once again elsewhere.
func TestABurstGrowsOverFewEngines(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	view, used, keys := viewOf(16), map[string]int{}, keysOf(1, 200)
	var live []*Reservation
	for i := range 48 {
		r, d := p.Reserve(view, wishOf(keys, nil, true), now)
		if live = append(live, r); i < 8 && len(used) > 1 {
			t.Errorf("request %d: %v", i, used)
		}
		used[d.Engine.ID]++
	}
	if len(used) > 4 {
		t.Errorf("48 equal prompts on %d engines: %v", len(used), used)
	}
	t.Log(used)
	for _, r := range live {
		r.Release(now, true, true)
	}
}

// TestAPrefixThatOneEngineCannotServeIsCopied holds hot prompts against the same load without them: the share of the
// traffic that one prefix has makes its copies cheap.
func TestAPrefixThatOneEngineCannotServeIsCopied(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	view, keys := viewOf(4), keysOf(1, 400)
	for i := range 40 {
		p.Reserve(view, wishOf(append(slices.Clone(keys), keysOf(uint64(i)+10, 20)...), map[string]uint32{"e00": 400}, true), now)
	}
	hot := wishOf(keys, map[string]uint32{"e00": 400}, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	sharing := func(w *Wish) int {
		p.usable(w, now)
		p.hear(w.Score.Engines)
		p.observe(w, &p.decode, now)
		return p.decode.seen.Sharing
	}
	if n := sharing(hot); n != 40 {
		t.Errorf("%d share the head, want 40", n)
	}
	other := wishOf(keysOf(2, 400), map[string]uint32{"e00": 400}, true)
	if n := sharing(other); n != 0 {
		t.Errorf("%d share the head of another prompt", n)
	}
}

func TestANewLifeOfAnEngineForgetsWhatWasSentToTheOldOne(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	view := viewOf(1)
	q := &Wish{Chain: keysOf(3, 50), Bytes: 50 * 512, Model: model}
	first, _ := p.Reserve(view, q, now)
	second, _ := p.Reserve(view, q, now)
	if first.Cached != 0 || second.Cached < 6000 {
		t.Errorf("cached %d, then %d", first.Cached, second.Cached)
	}
	next := viewOf(1)
	e := next.Engines["e00"]
	e.Generation = 99
	next.Engines["e00"] = e
	if third, _ := p.Reserve(next, q, now); third.Cached != 0 {
		t.Errorf("%d tokens cached in a new life", third.Cached)
	}
}

// An engine whose bucket no shard answered for is not cold: what it was sent lately stands in.
func TestWhereNoShardAnswersTheApproximationStandsIn(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	view, keys := viewOf(4), keysOf(1, 400)
	q := wishOf(keys, map[string]uint32{"e00": 0, "e01": 0, "e02": 0, "e03": 0}, true)
	q.Chain = keysOf(3, 50)
	first, _ := p.Reserve(view, q, now)
	first.FirstByte(now)
	first.Release(now, true, true)
	now = now.Add(time.Minute) // longer than a placement stands for the index
	unanswered := wishOf(keys, nil, true)
	unanswered.Chain, unanswered.Score.Partial = q.Chain, true
	again, _ := p.Reserve(view, unanswered, now)
	if again.Engine.ID != first.Engine.ID || again.Cached < 6000 {
		t.Errorf("sent to %s, then to %s with %d tokens taken for cached", first.Engine.ID, again.Engine.ID, again.Cached)
	}
	again.FirstByte(now)
	again.Release(now, true, true)
	now = now.Add(time.Minute)
	if cold, _ := p.Reserve(view, q, now); cold.Cached != 0 {
		t.Errorf("%d tokens taken for cached although every shard says that nothing is", cold.Cached)
	}
}
