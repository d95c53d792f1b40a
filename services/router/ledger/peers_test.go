package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/policy"
)

// script says who decodes, and who computes the prompt for it; empty is nobody.
type script struct{ decode, prefill string }

func (s *script) pick(_ *policy.State, o *policy.Observation, _ uint64, _ []float64) policy.Choice {
	return policy.Choice{Index: slices.IndexFunc(o.Candidates, func(c policy.Candidate) bool { return c.Engine == s.decode })}
}

func (s *script) split(_ *policy.State, decode, prefill *policy.Observation, _ uint64, _ policy.Pair) policy.Pair {
	pair := policy.Pair{Decode: s.pick(nil, decode, 0, nil)}
	pair.Prefill.Index = slices.IndexFunc(prefill.Candidates, func(c policy.Candidate) bool { return c.Engine == s.prefill })
	return pair
}

// tell hands what one ledger has to tell to another, as it is on the wire.
func tell(t *testing.T, from, to *Pool, v *fleet.View, n News, now time.Time) {
	t.Helper()
	n.Entries = from.Tell(nil, n.Whole, now)
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var heard News
	if err := json.Unmarshal(data, &heard); err != nil {
		t.Fatal(err)
	}
	if err := to.Hear(v, &heard, now); err != nil {
		t.Fatal(err)
	}
}

// seen is what the policy would see of every engine now.
func seen(p *Pool, view *fleet.View, now time.Time) (all []policy.Candidate) {
	p.Sweep(view, now)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.rows {
		all = append(all, w.candidate(p.epoch, now))
	}
	return all
}

// alike compares what is exact to the unit, and seconds to a microsecond.
func alike(a, b policy.Candidate) bool {
	for _, pair := range [][2]*float64{
		{&a.WaitSeconds, &b.WaitSeconds}, {&a.OldestSent, &b.OldestSent}, {&a.OldestSeconds, &b.OldestSeconds},
		{&a.LastFirst, &b.LastFirst}, {&a.ColdWork, &b.ColdWork},
	} {
		if math.Abs(*pair[0]-*pair[1]) > 1e-6*max(1, math.Abs(*pair[0])) {
			return false
		}
		*pair[0] = *pair[1]
	}
	return a == b
}

// TestRoutersThatHearOneAnotherSeeWhatOneWould splits random requests over two routers and compares what each sees of
// the engines with the ledger of one router that has them all.
func TestRoutersThatHearOneAnotherSeeWhatOneWould(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	start := time.Unix(50_000, 0)
	now, next := start, script{}
	views := []*fleet.View{viewOf(5), viewWith(fleet.Both, fleet.Decode, fleet.Prefill, fleet.Both)}
	for i, view := range views {
		var pools [3]*Pool // two routers, and the one
		for i := range pools {
			pools[i] = NewPool(poolRecord.ID, next.pick, 1, start)
		}
		scripts := []script{{"e00", ""}, {"e01", ""}, {"e04", ""}}
		if i == 1 {
			scripts = []script{{"e00", ""}, {"e01", "e02"}, {"e03", "e02"}, {"e01", "e03"}, {"e03", ""}}
		}
		var live [][2]*Reservation // the router's, and the one's
		told := func(whole bool) {
			for i := range 2 {
				tell(t, pools[i], pools[1-i], view, News{Router: fmt.Sprint(i), Life: 1, Seq: uint64(now.UnixNano()), Whole: whole}, now)
			}
		}
		for step := range 2000 {
			now = now.Add(time.Duration(1+r.IntN(40)) * time.Millisecond)
			k := r.IntN(6)
			switch {
			case k < 2 || len(live) == 0:
				w := wishOf(keysOf(uint64(step), 1+r.IntN(100)), nil, true)
				w.Split, next = next.split, scripts[r.IntN(len(scripts))]
				var q [2]*Reservation
				q[0], _ = pools[r.IntN(2)].Reserve(view, w, now)
				q[1], _ = pools[2].Reserve(view, w, now)
				live = append(live, q)
			default:
				i := r.IntN(len(live))
				for _, one := range live[i] {
					switch {
					case k == 2 && one.Prefill != nil:
						one.PrefillDone(now)
					case k <= 3 && (one.Prefill == nil || one.Prefill.ended):
						one.FirstByte(now)
					case k == 4 && one.first:
						one.Token(i, time.Millisecond)
					case k == 5:
						one.Release(now, one.first, true)
					}
				}
				if k == 5 {
					live = slices.Delete(live, i, i+1)
				}
			}
			if step%7 == 0 { // streamed tokens are told with the whole
				told(step%14 == 0)
			}
			if step%14 != 0 {
				continue
			}
			want := seen(pools[2], view, now)
			for i := range 2 {
				for j, got := range seen(pools[i], view, now) {
					if !alike(got, want[j]) {
						t.Fatalf("step %d: router %d sees\n%+v, the one\n%+v", step, i, got, want[j])
					}
				}
			}
		}
	}
}

func TestWhatIsLostOnTheWayIsHealedByTheNextWhole(t *testing.T) {
	now := time.Unix(50_000, 0)
	a, b, view := warmPool(now), warmPool(now), viewOf(3)
	idle := fmt.Sprint(seen(b, view, now))
	r, _ := a.Reserve(view, wishOf(keysOf(1, 50), nil, true), now)
	tell(t, a, b, view, News{Router: "a", Life: 1, Seq: 1}, now)
	if fmt.Sprint(seen(b, view, now)) == idle {
		t.Fatal("a peer's request is not seen")
	}
	r.Release(now, false, false)
	if lost := a.Tell(nil, false, now); len(lost) != 1 || lost[0].Active != 0 {
		t.Fatalf("told %+v", lost)
	}
	if again := a.Tell(nil, false, now); len(again) != 0 {
		t.Errorf("told twice: %+v", again)
	}
	tell(t, a, b, view, News{Router: "a", Life: 1, Seq: 3, Whole: true}, now)
	if got := seen(b, view, now); got[0].Active+got[1].Active+got[2].Active != 0 {
		t.Errorf("after the whole: %+v", got)
	}
	// An engine that a whole does not name has nothing.
	if err := b.Hear(view, &News{Router: "a", Life: 1, Seq: 4, Entries: []Entry{{Engine: "e00", Active: 2}, {Engine: "e01", Active: 3}}}, now); err != nil {
		t.Fatal(err)
	}
	if err := b.Hear(view, &News{Router: "a", Life: 1, Seq: 5, Whole: true, Entries: []Entry{{Engine: "e01", Active: 4}}}, now); err != nil {
		t.Fatal(err)
	}
	if got := seen(b, view, now); got[0].Active != 0 || got[1].Active != 4 {
		t.Errorf("after a whole that names one: %+v", got)
	}
}

func TestASilentPeerIsForgotten(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(2)
	p.Sweep(view, now)
	hear := func(life int64, seq uint64, active int) error {
		return p.Hear(view, &News{Router: "a", Life: life, Seq: seq, Entries: []Entry{{Engine: "e00", Active: active}}}, now)
	}
	want := func(when string, active, peers int) {
		t.Helper()
		if n := p.Peers(now); n != peers {
			t.Errorf("%s: %d peers", when, n)
		}
		if got := seen(p, view, now)[0].Active; got != active {
			t.Errorf("%s: %d active", when, got)
		}
	}
	if err := hear(1, 5, 3); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{5, 4} {
		if err := hear(1, seq, 9); !errors.Is(err, ErrOldNews) {
			t.Errorf("old news: %v", err)
		}
	}
	want("heard", 3, 1)
	if err := hear(2, 1, 1); err != nil { // it was started anew: what its last life had under way ended with it
		t.Fatal(err)
	}
	want("a new life", 1, 1)
	if loads := p.Loads(); loads["e00"] != (Load{}) {
		t.Errorf("reported as our own: %+v", loads)
	}
	now = now.Add(PeerSilence)
	want("just before", 1, 1)
	now = now.Add(1)
	want("silent", 0, 0)
}

// Learning must not take for slow an engine that works for others too.
func TestRatesAreLearnedBesidePeers(t *testing.T) {
	learned := func(hears bool) policy.Rate {
		start := time.Unix(50_000, 0)
		a, b, view := warmPool(start), warmPool(start), viewOf(1)
		now := start
		for i := range 200 { // b decodes twenty long sequences there all the time, a one
			var others []*Reservation
			for j := range 20 {
				r, _ := b.Reserve(view, wishOf(keysOf(uint64(i*100+j), 500), nil, true), now)
				r.FirstByte(now)
				others = append(others, r)
			}
			if hears {
				tell(t, b, a, view, News{Router: "b", Life: 1, Seq: uint64(i + 1), Whole: true}, now)
			}
			r, _ := a.Reserve(view, wishOf(keysOf(uint64(i*100+50), 2), nil, true), now)
			r.FirstByte(now)
			step := time.Duration(a.state.StepSeconds(21, 20*8001+33) * float64(time.Second))
			for range 20 {
				now = now.Add(step)
				r.Token(1, step)
			}
			r.Release(now, true, true)
			for _, one := range others {
				one.Release(now, true, true)
			}
		}
		return a.state.Rate("e00")
	}
	if rate := learned(true); rate.Decode < .97 || rate.Decode > 1.03 {
		t.Errorf("beside a peer that is heard the engine decodes at %v", rate)
	}
	if rate := learned(false); rate.Decode < 1.2 {
		t.Errorf("beside a peer that is not heard it decodes at %v: this test sees nothing", rate)
	}
}

func TestNewsThatCannotBeTrueAreRefused(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	p.Sweep(viewOf(2), now)
	for _, e := range []Entry{
		{Active: -1}, {Active: 1, Waiting: 2}, {WaitContext: -1}, {Uncached: -5}, {Coming: -1}, {DecodeContext: 1 << 60},
		{WaitSeconds: -1}, {OldestAge: math.NaN()}, {FirstAge: math.Inf(1)}, {ColdWork: 1e300}, {Prefilled: -1}, {OldestSeconds: -1},
	} {
		e.Engine = "e00"
		if err := p.Hear(p.view, &News{Router: "a", Life: 1, Seq: 1, Entries: []Entry{{Engine: "e01", Active: 1}, e}}, now); !errors.Is(err, ErrBadNews) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if p.Peers(now) != 0 || seen(p, viewOf(2), now)[1].Active != 0 {
		t.Error("a part of them was taken")
	}
	for i := range maxPeers + 10 {
		err := p.Hear(p.view, &News{Router: fmt.Sprint(i), Life: 1, Seq: 1, Entries: []Entry{{Engine: "e00", Active: 1}, {Engine: "nobody", Active: 1}}}, now)
		if (err != nil) != (i >= maxPeers) || err != nil && !errors.Is(err, ErrTooManyPeers) {
			t.Errorf("peer %d: %v", i, err)
		}
	}
	if len(p.all) != 2 || len(p.all["e00"].told) != maxPeers {
		t.Errorf("%d rows, %d entries", len(p.all), len(p.all["e00"].told))
	}
}

// FuzzHear lets a peer send anything; what is taken is bounded, and gone when the peer is.
func FuzzHear(f *testing.F) {
	f.Add([]byte(`{"router":"a","life":1,"seq":1,"engines":[{"e":"e00","a":3,"w":1,"s":0.5,"oa":1,"os":0.5,"fa":2,"cw":100}]}`),
		[]byte(`{"router":"a","life":2,"seq":1,"whole":true,"engines":[{"e":"e01","a":1099511627776,"d":7}]}`))
	f.Add([]byte(`{"router":"a","seq":18446744073709551615,"engines":[{"e":"e00","p":1e9},{"e":"e00","p":0}]}`), []byte(`{"seq":1,"whole":true}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		now := time.Unix(50_000, 0)
		p, view := warmPool(now), viewOf(2)
		p.Sweep(view, now)
		for i, data := range [][]byte{first, second} {
			var n News
			if json.Unmarshal(data, &n) == nil {
				_ = p.Hear(view, &n, now.Add(time.Duration(i)*time.Second))
			}
		}
		r, d := p.Reserve(view, wishOf(keysOf(1, 20), nil, true), now.Add(time.Second))
		if r == nil || d.Costs[0] != d.Costs[0] || d.Costs[1] != d.Costs[1] {
			t.Fatalf("chose %+v", d)
		}
		r.FirstByte(now.Add(2 * time.Second))
		r.Release(now.Add(2*time.Second), true, true)
		later := now.Add(time.Minute)
		if p.Peers(later) != 0 || len(p.all) != 2 {
			t.Fatalf("%d peers, %d rows", p.Peers(later), len(p.all))
		}
		for _, c := range seen(p, view, later) {
			if c.Active != 0 || c.WaitSeconds != 0 || c.DecodeContext != 0 || c.WaitContext != 0 {
				t.Fatalf("still there: %+v", c)
			}
		}
	})
}

// What a peer has under way takes room on the engines too.
func TestPeersTakeRoom(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(1)
	gate := Gate{Wait: 100 * time.Millisecond, ITL: 20 * time.Millisecond}
	for name, e := range map[string]Entry{
		"a queue": {Active: 3, Waiting: 3, WaitContext: 9000, WaitSeconds: .5}, "a batch": {Active: 90, DecodeContext: 200_000},
	} {
		e.Engine = "e00"
		if err := p.Hear(view, &News{Router: name, Life: 1, Seq: 1, Entries: []Entry{{Engine: "e00", Active: 1}}}, now); err != nil || !p.Room(view, model, gate, Unbooked{}, now) {
			t.Errorf("%s: no room beside one request, %v", name, err)
		}
		if err := p.Hear(view, &News{Router: name, Life: 1, Seq: 2, Entries: []Entry{e}}, now); err != nil || p.Room(view, model, gate, Unbooked{}, now) {
			t.Errorf("%s: there is room, %v", name, err)
		}
		now = now.Add(PeerSilence + 1)
	}
}
