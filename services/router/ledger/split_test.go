package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/policy"
)

// splitNamed is the Splitter of a policy, as the router will have it.
func splitNamed(name policy.Name) Splitter {
	return func(s *policy.State, decode, prefill *policy.Observation, random uint64, last policy.Pair) policy.Pair {
		return policy.Split(name, s, decode, prefill, random, last)
	}
}

// viewWith is a view of engines with these roles, in the order of their ids.
func viewWith(roles ...fleet.Role) *fleet.View {
	v := viewOf(len(roles))
	for i, role := range roles {
		id := fmt.Sprintf("e%02d", i)
		e := v.Engines[id]
		e.Role = role
		v.Engines[id] = e
	}
	return v
}

// splitWish is a wish that another engine compute the prompt, always where the rule allows it.
func splitWish(seed uint64, blocks int) *Wish {
	w := wishOf(keysOf(seed, blocks), nil, true)
	w.Split = splitNamed(policy.LeastTokens)
	return w
}

// TestARequestWithAPrefillEngine follows one request from its booking on two engines to its end.
func TestARequestWithAPrefillEngine(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewWith(fleet.Decode, fleet.Prefill)
	want := func(when string, decode, prefill Load) {
		t.Helper()
		l := p.Loads()
		decode.WaitSeconds, prefill.WaitSeconds = l["e00"].WaitSeconds, l["e01"].WaitSeconds
		if l["e00"] != decode || l["e01"] != prefill {
			t.Errorf("%s: %+v", when, l)
		}
	}
	r, d := p.Reserve(view, splitWish(1, 100), now)
	if r.Engine.ID != "e00" || r.Prefill == nil || r.Prefill.Engine.ID != "e01" || d.Engine.ID != "e00" || d.Prefill.Engine.ID != "e01" ||
		fmt.Sprint(d.Names, d.Prefill.Names) != "[e00] [e01]" {
		t.Fatalf("%+v, %+v", r, d)
	}
	want("booked", Load{Active: 1, Waiting: 1, WaitContext: 1601}, Load{Active: 1, Waiting: 1, WaitContext: 1601, Uncached: 1601})
	if w := r.row.candidate(now, now); w.Coming != 1601 || w.Uncached != 0 || w.WaitSeconds != 0 {
		t.Errorf("the decode engine looks like %+v", w)
	}
	r.PrefillDone(now.Add(time.Second))
	r.PrefillDone(now.Add(time.Second))
	want("computed", Load{Active: 1, Waiting: 1, WaitContext: 1601}, Load{})
	r.FirstByte(now.Add(1100 * time.Millisecond))
	if !r.row.lastFirst.IsZero() {
		t.Error("the first byte of a prompt that was computed elsewhere counts as progress of those that wait here")
	}
	r.Token(3, 0)
	want("decoding", Load{Active: 1, DecodeContext: 1601, Streamed: 3}, Load{})
	r.Release(now, true, true)
	want("ended", Load{}, Load{})
	// Both engines hold the prompt now, as far as the router knows.
	for _, w := range p.rows {
		if n := p.keyed.Depth(w.number, splitWish(1, 100).Score.Keys, 0); n != 100 {
			t.Errorf("%s is believed to hold %d blocks", w.engine.ID, n)
		}
	}
}

func TestAFailedPrefillFallsBackToTheDecodeEngine(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewWith(fleet.Decode, fleet.Prefill)
	for i := range failuresToEject {
		now = now.Add(time.Second)
		r, _ := p.Reserve(view, splitWish(uint64(i), 100), now)
		if r.Prefill == nil {
			t.Fatalf("request %d is not split", i)
		}
		if r.PrefillFailed(now) != (i == failuresToEject-1) {
			t.Errorf("failure %d", i)
		}
		if r.PrefillFailed(now) {
			t.Error("failed twice")
		}
		r.PrefillDone(now) // too late to count
		l := p.Loads()
		if d := l["e00"]; d.Waiting != 1 || d.Active != 1 || d.Uncached != 1601 || d.WaitContext != 1601 || d.WaitSeconds <= 0 || l["e01"] != (Load{}) {
			t.Errorf("after the failure: %+v", l)
		}
		r.FirstByte(now)
		r.Release(now, true, true)
		if l := p.Loads(); l["e00"] != (Load{}) || l["e01"] != (Load{}) {
			t.Errorf("at the end: %+v", l)
		}
	}
	if r, _ := p.Reserve(view, splitWish(9, 100), now); r.Prefill != nil || r.Engine.ID != "e00" {
		t.Errorf("an ejected prefill engine gets %+v", r.Prefill)
	}
}

// Pools where every engine does all, and wishes that must not be split, choose as if there were no roles.
func TestWhereNothingIsSplit(t *testing.T) {
	for name, c := range map[string]struct {
		view  *fleet.View
		split bool
	}{
		"both":        {viewWith(fleet.Both, fleet.Both, fleet.Both), true},
		"decode":      {viewWith(fleet.Decode, fleet.Decode), true},
		"prefill":     {viewWith(fleet.Prefill, fleet.Prefill), true},
		"not allowed": {viewWith(fleet.Prefill, fleet.Decode, fleet.Both), false},
	} {
		said := [2]string{}
		for run := range said {
			now := time.Unix(50_000, 0)
			p := warmPool(now)
			for i := range 60 {
				now = now.Add(10 * time.Millisecond)
				w := splitWish(uint64(i%7), 10+i*5)
				if w.Split = nil; run == 0 && c.split {
					w.Split = splitNamed(policy.Warm)
				}
				r, d := p.Reserve(c.view, w, now)
				if r.Prefill != nil || d.Prefill != nil {
					t.Fatalf("%s: split", name)
				}
				said[run] += fmt.Sprint(r.Engine.ID, d.Reason, d.Names, d.Costs, r.Cached, "\n")
				if i%3 == 0 {
					r.FirstByte(now)
					r.Release(now, true, true)
				}
			}
		}
		if said[0] != said[1] {
			t.Errorf("%s: the chance to split changes choices", name)
		}
	}
}

// TestSplitLedgerAgainstModel drives a pool with roles with random requests, each ended at any point, and compares every
// row with sums over the live ones.
func TestSplitLedgerAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	views := []*fleet.View{
		viewWith(fleet.Decode, fleet.Decode, fleet.Prefill, fleet.Prefill, fleet.Both),
		viewWith(fleet.Decode, fleet.Decode, fleet.Prefill), viewWith(fleet.Both, fleet.Decode),
	}
	view, splits, failures, late := views[0], 0, 0, 0 // late ones were taken to decode already, as they do not stream
	var live []*Reservation
	answered := map[*Reservation]bool{}
	for step := range 6000 {
		now = now.Add(time.Duration(r.IntN(40)) * time.Millisecond)
		var one *Reservation
		if len(live) > 0 {
			one = live[r.IntN(len(live))]
		}
		switch k := r.IntN(7); {
		case k < 2 || one == nil:
			w := splitWish(uint64(r.IntN(20)), 1+r.IntN(100))
			if w.Streams = r.IntN(3) > 0; r.IntN(2) == 0 {
				w.Split = splitNamed(policy.Warm)
			}
			res, d := p.Reserve(view, w, now)
			if res == nil || (res.Prefill == nil) != (d.Prefill == nil) || res.Prefill != nil && res.Prefill.row == res.row {
				t.Fatalf("step %d: %+v", step, res)
			}
			if live = append(live, res); res.Prefill != nil {
				splits++
			}
		case k == 2:
			one.PrefillDone(now)
		case k == 3 && one.Prefill != nil && !one.Prefill.ended && r.IntN(2) == 0:
			if one.first {
				late++
			}
			one.PrefillFailed(now)
			failures++
		case k == 4 && (one.Prefill == nil || one.Prefill.ended):
			one.FirstByte(now)
			answered[one] = true
		case k == 5 && one.first:
			one.Token(r.IntN(5), time.Duration(r.IntN(30))*time.Millisecond)
		case k == 6:
			i := slices.Index(live, one)
			one.Release(now, answered[one], true)
			one.Release(now, false, false)
			live = slices.Delete(live, i, i+1)
			if r.IntN(100) == 0 {
				view = views[r.IntN(len(views))]
			}
		}
		checkRows(t, p, withLegs(live))
	}
	for _, one := range live {
		one.Release(now, answered[one], false)
	}
	checkRows(t, p, nil)
	p.Sweep(view, now.Add(time.Hour))
	if size := p.Size(); size != (Size{}) || splits < 100 || failures < 10 || late < 3 {
		t.Errorf("%d splits, %d failures, %d late; still remembered: %+v", splits, failures, late, size)
	}
}

// withLegs adds the prefill engines' places that are still held.
func withLegs(live []*Reservation) []*Reservation {
	all := slices.Clone(live)
	for _, r := range live {
		if r.Prefill != nil && !r.Prefill.ended {
			all = append(all, r.Prefill)
		}
	}
	return all
}

// A transfer is learned where nothing else holds the prompt up, and only there.
func TestTheLedgerTeachesTransfers(t *testing.T) {
	start := time.Unix(50_000, 0)
	for _, c := range []struct {
		name    string
		beside  bool
		usage   float64
		learned bool
	}{{"alone", false, .5, true}, {"a prompt is computed beside it", true, .5, false}, {"blocks are short", false, .95, false}} {
		p, view := warmPool(start), viewWith(fleet.Decode, fleet.Prefill)
		before := p.state.TransferSeconds(1000)
		p.Sweep(view, start)
		if c.beside {
			w := splitWish(99, 100)
			w.Split = nil
			p.Reserve(view, w, start)
		}
		for i := range 200 {
			now := start.Add(time.Duration(i) * time.Second)
			p.Scraped("e00", Scrape{Usage: c.usage}, now)
			r, _ := p.Reserve(view, splitWish(uint64(i), 100), now)
			r.PrefillDone(now)
			r.FirstByte(now.Add(time.Duration((policy.StepsAround*r.step + .1) * float64(time.Second))))
			r.Release(now, true, true)
		}
		after := p.state.TransferSeconds(1601)
		if c.learned && (after < .09 || after > .11) || !c.learned && p.state.TransferSeconds(1000) != before {
			t.Errorf("%s: %v becomes %v", c.name, before, after)
		}
	}
}

// TestSimultaneousSplitsLeaveAnEmptyLedger calls what tells of two engines at once; the race detector judges too.
func TestSimultaneousSplitsLeaveAnEmptyLedger(t *testing.T) {
	start := time.Unix(50_000, 0)
	p, view := warmPool(start), viewWith(fleet.Decode, fleet.Decode, fleet.Prefill, fleet.Prefill, fleet.Both)
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 2))
			for i := range 200 {
				now := start.Add(time.Duration(i) * 10 * time.Millisecond)
				res, _ := p.Reserve(view, splitWish(uint64(r.IntN(9)), 50), now)
				switch r.IntN(4) {
				case 0: // the client leaves
					res.Release(now, false, false)
					continue
				case 1:
					res.PrefillFailed(now)
				default:
					res.PrefillDone(now)
				}
				res.FirstByte(now)
				res.Token(1, time.Millisecond)
				res.Release(now, true, true)
			}
		})
	}
	wait.Wait()
	for id, l := range p.Loads() {
		if l != (Load{}) {
			t.Errorf("%s keeps %+v", id, l)
		}
	}
	if p.Sweep(view, start.Add(time.Hour)); p.Size() != (Size{}) {
		t.Errorf("still remembered: %+v", p.Size())
	}
}

// After a failure another prefill engine takes the prompt over for the same decode engine, or nobody.
func TestAnotherPrefillEngineTakesOver(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewWith(fleet.Decode, fleet.Prefill, fleet.Prefill, fleet.Decode)
	w := splitWish(1, 100)
	r, _ := p.Reserve(view, w, now)
	first, engine := r.Prefill.Engine.ID, r.Engine.ID
	if d := r.PrefillAgain(view, w, now); d != nil {
		t.Fatalf("a prompt that is under way is taken by %s", d.Engine.ID)
	}
	w.Without = map[string]bool{first: true}
	r.PrefillRefused(now)
	if l := p.Loads(); l[first] != (Load{}) || l[engine].Uncached != 1601 {
		t.Fatalf("refused: %+v", l)
	}
	d := r.PrefillAgain(view, w, now.Add(time.Second))
	if d == nil || d.Prefill == nil || d.Prefill.Engine.ID == first || r.Prefill.Engine.ID != d.Prefill.Engine.ID || r.Engine.ID != engine || r.Cached != 0 {
		t.Fatalf("%+v", d)
	}
	second := r.Prefill.Engine.ID
	if l := p.Loads(); l[engine].Uncached != 0 || l[engine].Active != 1 || l[engine].WaitContext != 1601 || l[second].Uncached != 1601 {
		t.Errorf("taken over: %+v", l)
	}
	if r.PrefillFailed(now) {
		t.Error("one failure ejects")
	}
	w.Without[second] = true
	if d := r.PrefillAgain(view, w, now); d != nil {
		t.Errorf("nobody is left, but %s", d.Prefill.Engine.ID)
	}
	r.FirstByte(now.Add(2 * time.Second))
	r.Release(now.Add(3*time.Second), true, true)
	for id, l := range p.Loads() {
		if l != (Load{}) {
			t.Errorf("%s keeps %+v", id, l)
		}
	}
	// Nobody tells of a prompt that a sidecar has computed: the first byte ends both.
	r, _ = p.Reserve(view, splitWish(2, 100), now)
	r.FirstByte(now.Add(time.Second))
	if l := p.Loads(); l[r.Prefill.Engine.ID] != (Load{}) || l[r.Engine.ID].DecodeContext != 1601 {
		t.Errorf("at the first byte: %+v", l)
	}
	r.Release(now, true, true)
	for id, l := range p.Loads() {
		if l != (Load{}) {
			t.Errorf("%s keeps %+v", id, l)
		}
	}
}
