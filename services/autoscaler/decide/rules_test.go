package decide_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func times(d demand, factor float64) demand {
	d.rate *= factor
	return d
}

func ups(p *pool, role decide.Role) (n, ordered int) {
	for _, s := range p.orders {
		if s.Role == role && s.To > s.From {
			n, ordered = n+1, ordered+s.To-s.From
		}
	}
	return n, ordered
}

func blocked(t *testing.T, r decide.RoleDecision, words string) {
	t.Helper()
	if !slices.ContainsFunc(r.Blocked, func(s string) bool { return strings.Contains(s, words) }) {
		t.Fatalf("%q does not say %q", r.Blocked, words)
	}
}

// A step is answered within three ticks, with all that it takes, and what starts is not ordered again.
func TestUpAtOnceAndOnce(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(6, 7))
	p.strict = true
	p.run(10*time.Minute, steady())
	before := p.last.Roles[decide.Prefill].Target
	p.run(30*time.Second, times(steady(), 3))
	up := p.last.Roles[decide.Prefill].Target
	if up < 11 { // 10.5 busy
		t.Fatalf("%d prefill replicas half a minute after a step to 10.5 busy", up)
	}
	p.run(10*time.Minute, times(steady(), 3))
	after := p.target(decide.Prefill, 12, 18)
	if _, ordered := ups(p, decide.Prefill); ordered != after.Target-before {
		t.Fatalf("%d were ordered to come from %d to %d: %+v", ordered, before, after.Target, p.orders)
	}
	p.target(decide.Decode, 14, 20)
}

// An order that takes a while to show is not given again, unless more is needed; one that never shows is.
func TestOrdersThatDoNotShowCount(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(6, 7))
	p.run(10*time.Minute, steady())
	old := p.observe().Replicas
	hide := func(o *decide.Observation) {
		for role, r := range old {
			r.Read = p.now
			o.Replicas[role] = r
		}
	}
	var given []int
	state := p.state
	for range 20 { // nothing of what is ordered shows
		p.totals.Arrivals += 375
		p.totals.Uncached += 375 * 2000
		p.totals.Prompt += 375 * 4000
		p.now = p.now.Add(5 * time.Second)
		o := p.observe()
		hide(&o)
		var d decide.Decision
		state, d = state.Decide(o, p.now)
		for _, s := range decide.Steps(p.policy, o, d) {
			if s.Do == decide.Scale && s.Role == decide.Prefill {
				given = append(given, s.To)
			}
		}
	}
	sorted := slices.IsSorted(given)
	again := 0
	for i := 1; i < len(given); i++ {
		if given[i] <= given[i-1] {
			again++
		}
	}
	if len(given) < 2 || !sorted || again > 2 || given[len(given)-1] > 18 {
		t.Fatalf("orders %v, want growing ones, and one again where it was not carried out for half a minute", given)
	}
}

// What is needed is held for 900 s; then replicas go by a quarter a minute, each drained first (the pool checks), and
// none while others start.
func TestDownAfterTheHoldAndByQuarters(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(2, 2))
	p.run(20*time.Minute, times(steady(), 3))
	high := p.last.Roles[decide.Prefill].Target
	p.orders = nil
	p.run(14*time.Minute, steady())
	p.target(decide.Prefill, high, high)
	p.target(decide.Decode, 15, 18)
	before, at := high, p.now
	for range 30 * 12 {
		p.tick(steady())
		if now := p.last.Roles[decide.Prefill].Target; now < before {
			if before-now > max(1, before/4) || p.now.Sub(at) < time.Minute {
				t.Fatalf("from %d to %d after %v", before, now, p.now.Sub(at))
			}
			before, at = now, p.now
		}
	}
	p.target(decide.Prefill, 5, 6)
	p.target(decide.Decode, 5, 7)
}

// Replicas that drain are called back before others are ordered.
func TestDrainingIsCalledBack(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(6, 7))
	for i := range p.engines[:3] {
		p.engines[i].Draining, p.engines[i].Operator = true, i == 0
	}
	o := p.observe()
	for i := range o.Engines[:3] {
		o.Engines[i].Inflight = i // they are not done
	}
	d := decide.Decision{At: p.now, Mode: decide.On, Roles: map[decide.Role]decide.RoleDecision{
		decide.Prefill: {Now: 3, Target: 8}, decide.Decode: {Now: 7, Target: 7},
	}}
	got := decide.Steps(p.policy, o, d)
	want := []decide.Step{
		{Do: decide.Undrain, Role: decide.Prefill, Engine: "prefill-3"}, // the busiest first
		{Do: decide.Undrain, Role: decide.Prefill, Engine: "prefill-2"},
		{Do: decide.Scale, Role: decide.Prefill, From: 6, To: 9}, // prefill-1 is the operator's
	}
	if !slices.EqualFunc(got, want, func(a, b decide.Step) bool {
		return a.Do == b.Do && a.Role == b.Role && a.Engine == b.Engine && a.From == b.From && a.To == b.To
	}) {
		t.Fatalf("steps %+v, want %+v", got, want)
	}
}

// Those that start are cancelled before others drain.
func TestStartingIsCancelledFirst(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(6, 7))
	o := p.observe()
	r := o.Replicas[decide.Prefill]
	r.Desired, r.Starting = 8, []decide.Starting{{Created: start}, {Created: start}}
	o.Replicas[decide.Prefill] = r
	d := decide.Decision{At: p.now, Roles: map[decide.Role]decide.RoleDecision{decide.Prefill: {Now: 8, Target: 5}}}
	got := decide.Steps(p.policy, o, d)
	if len(got) != 2 || got[0].Do != decide.Drain || got[1].Do != decide.Scale || got[1].To != 6 || got[1].Starting != 2 {
		t.Fatalf("steps %+v", got)
	}
}

// To zero only when every router says that there is nothing to do, for long; from zero with the first request that is
// held, both roles at once; and at zero it stays without one.
func TestZero(t *testing.T) {
	policy := decide.Policy{IdleAfter: 2 * time.Minute}
	p := newPool(t, policy, split(3, 3))
	p.strict = true
	p.run(10*time.Minute, steady())
	at := p.now
	for p.count(decide.Prefill)+p.count(decide.Decode) > 0 {
		p.tick(demand{})
		if p.now.Sub(at) > 10*time.Minute {
			t.Fatalf("still %+v", p.last.Roles)
		}
	}
	if p.now.Sub(at) < policy.IdleAfter {
		t.Fatalf("at zero after %v", p.now.Sub(at))
	}
	p.run(20*time.Minute, demand{})
	if r := p.target(decide.Prefill, 0, 0); r.Rule != "idle" {
		t.Fatalf("%+v", r)
	}
	p.totals.Queued, p.totals.Held, p.totals.Arrivals = 1, 1, p.totals.Arrivals+1
	p.tick(demand{})
	p.target(decide.Prefill, 1, 1)
	p.target(decide.Decode, 1, 1)
	p.run(30*time.Second, demand{})
	p.target(decide.Prefill, 1, 2)

	silent := newPool(t, policy, split(3, 3))
	silent.run(10*time.Minute, steady())
	silent.blind = func(o *decide.Observation) { o.Routers.Alive = 2 } // one of two says that it is idle
	silent.run(time.Hour, demand{})
	silent.target(decide.Prefill, 1, 9)
	silent.target(decide.Decode, 1, 9)
}

// A pool that has none when the autoscaler starts is left so until somebody asks; a minimum is kept.
func TestZeroFromTheBeginning(t *testing.T) {
	p := newPool(t, decide.Policy{IdleAfter: time.Hour}, split(0, 0))
	p.run(5*time.Minute, demand{})
	p.target(decide.Prefill, 0, 0)
	p = newPool(t, decide.Policy{Bounds: map[decide.Role]decide.Bounds{decide.Decode: {Min: 2}}}, split(0, 0))
	p.run(time.Minute, demand{})
	p.target(decide.Prefill, 1, 1)
	p.target(decide.Decode, 2, 2)
}

// The budget goes where it saves most violations, each role keeps one, and what is refused is said.
func TestBudget(t *testing.T) {
	p := newPool(t, decide.Policy{
		GPUs: 20, Bounds: map[decide.Role]decide.Bounds{decide.Prefill: {GPUs: 2}, decide.Decode: {GPUs: 2}},
	}, split(2, 2))
	long := demand{rate: 30, prompt: 8000, uncached: 4000, output: 10} // 8 busy of prefill, hardly any decode
	for range 20 * 12 {
		p.tick(long)
		if used := 2 * (p.count(decide.Prefill) + p.count(decide.Decode)); used > 20 {
			t.Fatalf("%d GPUs of 20", used)
		}
	}
	prefill := p.target(decide.Prefill, 9, 9)
	p.target(decide.Decode, 1, 1)
	if prefill.Short == 0 || prefill.Rule != "budget" || prefill.Need != 9+prefill.Short {
		t.Fatalf("%+v", prefill)
	}
	blocked(t, prefill, "the budget is 20 GPUs")
	// The mix turns: what prefill only holds goes to decode, by drains.
	short := demand{rate: 12, prompt: 1000, uncached: 200, output: 900}
	for range 10 * 12 {
		p.tick(short)
		if used := 2 * (p.count(decide.Prefill) + p.count(decide.Decode)); used > 20 {
			t.Fatalf("%d GPUs of 20", used)
		}
	}
	p.target(decide.Decode, 5, 9)
}

// What others order is adopted, stands for a minute, and is no reason for orders of the same tick.
func TestOthersOrdersAreAdopted(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(6, 7))
	p.run(20*time.Minute, steady())
	need := p.last.Roles[decide.Prefill].Need
	for range 4 {
		p.add(decide.Prefill)
	}
	p.orders = nil
	now := p.count(decide.Prefill)
	for range 11 {
		p.tick(steady())
		blocked(t, p.target(decide.Prefill, now, now), "others ordered")
	}
	p.run(10*time.Minute, steady())
	p.target(decide.Prefill, need, need)
	// Fewer, too.
	p.engines = slices.DeleteFunc(p.engines, func(e decide.Engine) bool { return e.Role == decide.Prefill })
	p.add(decide.Prefill)
	p.tick(steady())
	p.target(decide.Prefill, 1, 1)
	p.run(70*time.Second, steady())
	p.target(decide.Prefill, need, need)
}

func TestConflictOrdersNothing(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(1, 1))
	p.blind = func(o *decide.Observation) {
		for role, r := range o.Replicas {
			r.Conflict = "HorizontalPodAutoscaler chat"
			o.Replicas[role] = r
		}
	}
	p.run(10*time.Minute, steady())
	if len(p.orders) > 0 {
		t.Fatalf("orders %+v", p.orders)
	}
	blocked(t, p.target(decide.Prefill, 5, 6), "HorizontalPodAutoscaler chat scales the same object")
}

// Starts that do not come are not counted on; others are ordered for them, but not without end, and none where no node
// has room.
func TestStuckStarts(t *testing.T) {
	for why, most := range map[string]int{"Unschedulable": 6, "CrashLoopBackOff": 7, "": 7} {
		p := newPool(t, decide.Policy{}, split(2, 7))
		p.run(time.Minute, steady())
		p.blind = func(o *decide.Observation) {
			r := o.Replicas[decide.Prefill]
			r.Starts = nil
			for i := range r.Starting {
				r.Starting[i].Stuck = why
				p.starting[decide.Prefill][i].Stuck = "never"
				if why == "" {
					r.Starting[i].Created = start // overdue
				}
			}
			o.Replicas[decide.Prefill] = r
		}
		p.run(time.Hour, steady())
		r := p.target(decide.Prefill, 5, most)
		if have := p.count(decide.Prefill); have > most {
			t.Fatalf("%q: %d ordered", why, have)
		}
		blocked(t, r, "do not become ready")
	}
}

// After an overload sequences pile up in decode: no more is ordered than arrivals will occupy.
func TestBacklogIsNoDemand(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(8, 7))
	p.run(20*time.Minute, steady())
	flow := p.last.Roles[decide.Decode].Demand.Flow
	p.blind = func(o *decide.Observation) {
		for i := range o.Engines {
			if e := &o.Engines[i]; e.Role == decide.Decode {
				e.Decoding, e.Context, e.Scrape.Waiting = 250, 290_000, 500
			}
		}
	}
	p.run(10*time.Minute, steady())
	r := p.last.Roles[decide.Decode]
	if r.Demand.Observed < 5*flow || r.Demand.Held > 1.6*flow {
		t.Fatalf("observed %.1f, held %.1f, flow %.1f", r.Demand.Observed, r.Demand.Held, flow)
	}
	p.target(decide.Decode, 5, 9)
}

// Engines for both have one need: steps are longer for the prefill between them.
func TestBoth(t *testing.T) {
	p := newPool(t, decide.Policy{}, map[decide.Role]int{decide.Both: 4})
	p.run(20*time.Minute, demand{rate: 25, prompt: 4000, uncached: 100, output: 300})
	light := p.last.Roles[decide.Both].Need
	p.run(20*time.Minute, demand{rate: 25, prompt: 4000, uncached: 2000, output: 300})
	heavy := p.last.Roles[decide.Both].Need
	if light < 5 || heavy < light+3 {
		t.Fatalf("%d replicas without prefill, %d with work for 3.5", light, heavy)
	}
}
