package ledger

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/router/policy"
)

// TestEqualCallsMakeEqualChoices makes the same calls of two pools, at other times of the wall clock: the simulator's
// runs repeat.
func TestEqualCallsMakeEqualChoices(t *testing.T) {
	run := func(name policy.Name, seed uint64) string {
		var said strings.Builder
		r := rand.New(rand.NewPCG(5, 6))
		now := time.Unix(50_000, 0)
		p := NewPool(poolRecord.ID, named(name), seed, now)
		view := viewOf(12)
		for range 300 {
			now = now.Add(time.Duration(r.IntN(200)) * time.Millisecond)
			w := wishOf(keysOf(uint64(r.IntN(20)), 1+r.IntN(200)), nil, true)
			if w.Chain = w.Score.Keys; r.IntN(3) == 0 {
				w.Score, w.Bytes = nil, 512*len(w.Chain)
			}
			res, d := p.Reserve(view, w, now)
			_, _ = fmt.Fprintln(&said, d.Engine.ID, d.Reason, d.Names, d.Matched, d.Costs, res.Cached)
			if r.IntN(4) > 0 {
				res.FirstByte(now.Add(time.Duration(r.IntN(1000)) * time.Millisecond))
				for range 10 {
					res.Token(1, time.Duration(1+r.IntN(50))*time.Millisecond)
				}
				res.Release(now, true, true)
				p.Finished(10)
			}
		}
		return said.String()
	}
	for _, name := range []policy.Name{policy.Warm, policy.LeastTokens, policy.Random} {
		if run(name, 1) != run(name, 1) {
			t.Errorf("%s: another choice from the same calls", name)
		}
	}
	if run(policy.Random, 1) == run(policy.Random, 2) {
		t.Error("the seed makes no difference")
	}
}

func TestWhatEnginesSayOfThemselvesReachesThePolicy(t *testing.T) {
	now := time.Unix(50_000, 0)
	var seen []policy.Candidate
	p := NewPool(poolRecord.ID, func(_ *policy.State, o *policy.Observation, _ uint64, _ []float64) policy.Choice {
		seen = append(seen[:0], o.Candidates...)
		return policy.Choice{}
	}, 1, now)
	check := func(when string, usage float64, queued int) {
		t.Helper()
		if c := seen[1]; c.Engine != "e01" || c.Usage != usage || c.Queued != queued || seen[0].Usage != 0 || seen[0].Queued != 0 {
			t.Errorf("%s: %+v beside %+v", when, c, seen[0])
		}
	}
	wish := wishOf(keysOf(1, 10), nil, true)
	p.Scraped("e01", Scrape{Usage: .5, Queued: 7}, now)
	p.Reserve(viewOf(2), wish, now)
	check("before a view has shown it", 0, 0)
	p.Scraped("e01", Scrape{Usage: .5, Queued: 7}, now)
	p.Scraped("elsewhere", Scrape{Usage: .9, Queued: 9}, now)
	p.Reserve(viewOf(2), wish, now)
	check("scraped", .5, 7)
	p.Reserve(viewOf(2), wish, now.Add(scrapeAge))
	check("as old as it may be", .5, 7)
	p.Reserve(viewOf(2), wish, now.Add(scrapeAge+1))
	check("too old: neither busy nor idle, but unknown", 0, 0)
	next := viewOf(2)
	e := next.Engines["e01"]
	e.Generation++
	next.Engines["e01"] = e
	p.Reserve(next, wish, now)
	check("in its next life", 0, 0)
}

// A choice says what it was made among: in the order of the engines' ids, whatever order the scores came in.
func TestADecisionSaysWhatItWasMadeAmong(t *testing.T) {
	p := warmPool(time.Unix(50_000, 0))
	w := wishOf(keysOf(1, 400), map[string]uint32{"e03": 300, "e00": 20, "e02": 0, "gone": 400}, true)
	w.Without = map[string]bool{"e01": true}
	r, d := p.Reserve(viewOf(4), w, time.Unix(50_000, 0))
	if fmt.Sprint(d.Names, d.Matched) != "[e00 e02 e03] [20 0 300]" || len(d.Costs) != 3 {
		t.Errorf("decided %+v", d)
	}
	if d.Engine.ID != "e03" || r.Engine.ID != "e03" || r.Prompt != 6401 || r.Cached != 4800 || r.Uncached != 1601 {
		t.Errorf("reserved %+v", r)
	}
	said := fmt.Sprint(*d)
	p.Reserve(viewOf(4), wishOf(keysOf(2, 100), map[string]uint32{"e00": 100}, true), time.Unix(50_001, 0))
	if fmt.Sprint(*d) != said {
		t.Errorf("the next choice made %+v of %s", d, said)
	}
}

// TestSimultaneousRequestsLeaveAnEmptyLedger calls everything at once; the race detector judges too.
func TestSimultaneousRequestsLeaveAnEmptyLedger(t *testing.T) {
	start := time.Unix(50_000, 0)
	p, view := warmPool(start), viewOf(6)
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for i := range 200 {
				now := start.Add(time.Duration(i) * 10 * time.Millisecond)
				res, _ := p.Reserve(view, wishOf(keysOf(uint64(r.IntN(9)), 50), nil, r.IntN(2) == 0), now)
				answered := r.IntN(4) > 0
				if answered {
					res.FirstByte(now)
					res.Token(1, time.Millisecond)
				} else if r.IntN(5) == 0 {
					res.Failed(now)
				}
				res.Release(now, answered, answered)
			}
		})
	}
	for _, call := range []func(){ // each alone in its goroutine, where no other call's lock hides a race
		func() { p.Scraped("e01", Scrape{Usage: .5, Queued: 3}, start) },
		func() { p.Watch(start) },
		func() { p.Probed("e01", false, start) },
		func() { p.Finished(100) },
		func() { p.Sweep(view, start) },
		func() { p.Ready(view, model) },
		func() { p.Size() },
		func() { p.Loads() },
	} {
		wait.Go(func() {
			for range 500 {
				call()
			}
		})
	}
	wait.Wait()
	loads := p.Loads()
	for id, l := range loads {
		if l != (Load{}) {
			t.Errorf("%s keeps %+v", id, l)
		}
	}
	p.Sweep(view, start.Add(time.Hour))
	if size := p.Size(); len(loads) != 6 || size != (Size{}) {
		t.Errorf("%d engines; still remembered: %+v", len(loads), size)
	}
}
