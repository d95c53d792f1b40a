package elastic

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// trial is a small fleet under ours, with what was done to it.
type trial struct {
	sim.Elastic
	slow  time.Duration // times until a fault begins
	over  time.Duration // and ends
	done  []decide.Step // all
	when  []time.Duration
	most  map[decide.Role]int // ordered, at most
	lost  int
	spent map[decide.Role]sim.Spent
	n     int
	good  int
}

const (
	faultFrom = 10 * time.Minute
	faultTo   = 20 * time.Minute
)

// newTrial is a pool whose load goes from one rate to another in half an hour.
func newTrial(from, to float64) *trial {
	x := &trial{most: map[decide.Role]int{}, slow: faultFrom, over: faultTo}
	truth, rng, at := TruthOf(1), rand.New(rand.NewPCG(1, 1)), 0.
	until := 30 * time.Minute
	x.Elastic = sim.Elastic{
		Prefill: truth.Prefill, Decode: truth.Decode, Initial: map[decide.Role]int{decide.Prefill: 3, decide.Decode: 3},
		Startup: time.Minute, SLO: DefaultSLO(), Seed: 1, Until: until,
		Arrivals: func() (sim.Arrival, bool) {
			rate := from + (to-from)*min(1, at/until.Seconds())
			at += rng.ExpFloat64() / rate
			t := time.Duration(at * float64(time.Second))
			return sim.Arrival{At: t, Prompt: sim.Prompt{{ID: uint64(t), Tokens: 3000}}, Output: 400, Fits: true}, t < until
		},
		Answered: func(o sim.Outcome) {
			if x.n++; o.Lost {
				x.lost++
			} else if o.TTFT <= x.SLO.TTFT && o.ITL <= x.SLO.ITL {
				x.good++
			}
		},
		Ticked: func(t sim.Tick) {
			for role, c := range t.Roles {
				x.most[role] = max(x.most[role], c.Ordered)
			}
			for _, s := range t.Steps {
				x.done, x.when = append(x.done, s), append(x.when, t.At)
			}
		},
		Scaler: &ours{state: decide.State{Policy: Policy(DefaultSLO(), time.Minute, 0, SLO)}},
	}
	return x
}

// run runs the trial and holds what holds whatever fails: nothing is lost to a scale-down, and nothing is ordered twice.
func (x *trial) run(t *testing.T) *trial {
	t.Helper()
	e, err := sim.RunElastic(x.Elastic)
	if err != nil {
		t.Fatal(err)
	}
	x.spent = e.Roles
	for role, s := range e.Roles {
		if s.Duplicates != 0 || s.Conflicts != 0 {
			t.Errorf("%s: %d replicas are ordered twice, %d orders come too late", role, s.Duplicates, s.Conflicts)
		}
	}
	if x.lost != 0 || x.n != e.Requests || x.n < 1000 {
		t.Errorf("%d of %d requests are lost, %d end", x.lost, e.Requests, x.n)
	}
	return x
}

// downs are the steps by which a fleet shrinks, from one time to another.
func (x *trial) downs(from, to time.Duration) (n int) {
	for i, s := range x.done {
		if x.when[i] >= from && x.when[i] <= to && (s.Do == decide.Drain || s.Do == decide.Scale && s.To < s.From) {
			n++
		}
	}
	return n
}

// ups are replicas ordered.
func (x *trial) ups(from, to time.Duration) (n int) {
	for i, s := range x.done {
		if x.when[i] >= from && x.when[i] <= to && s.Do == decide.Scale && s.To > s.From {
			n += s.To - s.From
		}
	}
	return n
}

// during makes a fault of the middle ten minutes, given what was observed last before.
func during(fault func(o, before *decide.Observation)) sim.Faults {
	var before decide.Observation
	return sim.Faults{Hear: func(o *decide.Observation, now time.Duration) {
		if now <= faultFrom {
			before = *o
		} else if now <= faultTo {
			fault(o, &before)
		}
	}}
}

// The routers say nothing.
func noRouters(o, before *decide.Observation) {
	o.Routers = before.Routers
	o.Routers.Ended, o.Routers.Reporting = nil, 0
	for i := range o.Engines {
		e := &o.Engines[i]
		*e = decide.Engine{ID: e.ID, Role: e.Role, Serving: e.Serving, Draining: e.Draining, Scrape: e.Scrape}
		for _, b := range before.Engines {
			if b.ID == e.ID {
				b.Scrape, b.Draining = e.Scrape, e.Draining
				*e = b
			}
		}
	}
}

// The engines' metrics stay away.
func noScrapes(o, before *decide.Observation) {
	for i := range o.Engines {
		o.Engines[i].Scrape = decide.Scrape{}
		for _, b := range before.Engines {
			if b.ID == o.Engines[i].ID {
				o.Engines[i].Scrape = b.Scrape
			}
		}
	}
}

// Every other engine's metrics stay away.
func halfSilent(o, before *decide.Observation) {
	all := append([]decide.Engine(nil), o.Engines...)
	noScrapes(o, before)
	for i := range all {
		if i%2 == 0 {
			o.Engines[i] = all[i]
		}
	}
}

// Both at once.
func blackout(o, before *decide.Observation) {
	noRouters(o, before)
	noScrapes(o, before)
}

// While load falls and something is not seen, nothing is taken away; when all is seen again, it is.
func TestNothingGoesInABlackout(t *testing.T) {
	if plain := newTrial(12, 1).run(t); plain.downs(0, 30*time.Minute) == 0 {
		t.Fatal("nothing is taken away without a fault either: the trial shows nothing")
	}
	for name, fault := range map[string]func(o, before *decide.Observation){
		"routers": noRouters, "scrapes": noScrapes, "half of the engines": halfSilent, "everything": blackout,
	} {
		x := newTrial(12, 1)
		x.Initial = map[decide.Role]int{decide.Prefill: 6, decide.Decode: 8}
		x.Faults = during(fault)
		x.run(t)
		if n := x.downs(faultFrom+time.Second, faultTo); n != 0 {
			t.Errorf("%s: %d steps down in the blackout", name, n)
		}
		if x.downs(faultTo, 33*time.Minute) == 0 {
			t.Errorf("%s: nothing is taken away after the blackout", name)
		}
	}
}

// At rising load a blackout takes nothing away and loses nothing, and the fleet catches up.
func TestABlackoutAtRisingLoad(t *testing.T) {
	for name, fault := range map[string]func(o, before *decide.Observation){"routers": noRouters, "scrapes": noScrapes, "everything": blackout} {
		x := newTrial(8, 22)
		x.Faults = during(fault)
		x.run(t)
		if n := x.downs(faultFrom+time.Second, faultTo+time.Minute); n != 0 {
			t.Errorf("%s: %d steps down at rising load", name, n)
		}
		if x.ups(faultTo, 33*time.Minute) == 0 && x.ups(0, faultTo) == 0 {
			t.Errorf("%s: nothing is ordered", name)
		}
	}
}

// A scaler that takes what is missing for zero is caught by the two above.
type credulous struct{ arrivals float64 }

func (c *credulous) Steps(o decide.Observation, _ time.Time) (steps []decide.Step) {
	rate := (o.Routers.Arrivals - c.arrivals) / 5
	c.arrivals = o.Routers.Arrivals
	for _, role := range roles {
		if to, r := max(1, int(math.Ceil(rate/2))), o.Replicas[role]; to != r.Desired {
			steps = append(steps, decide.Step{Do: decide.Scale, Role: role, From: r.Desired, To: to})
		}
	}
	return steps
}

func TestTheTrialCatchesACredulousScaler(t *testing.T) {
	x := newTrial(8, 22)
	x.Scaler, x.Faults = &credulous{}, during(noRouters)
	if _, err := sim.RunElastic(x.Elastic); err != nil {
		t.Fatal(err)
	}
	if x.downs(faultFrom+time.Second, faultTo) == 0 || x.lost == 0 {
		t.Errorf("%d steps down, %d requests lost: want some of both", x.downs(faultFrom, faultTo), x.lost)
	}
}

// reset lets all counters begin anew.
func reset() sim.Faults {
	var b decide.Observation
	return sim.Faults{Hear: func(o *decide.Observation, now time.Duration) {
		if now <= faultFrom {
			b = *o
			return
		}
		r, from := &o.Routers, &b.Routers
		r.Arrivals, r.Prompt, r.Uncached = r.Arrivals-from.Arrivals, r.Prompt-from.Prompt, r.Uncached-from.Uncached
		r.Output, r.Finished = r.Output-from.Output, r.Finished-from.Finished
		for i := range o.Engines {
			e := &o.Engines[i]
			for _, was := range b.Engines {
				if was.ID == e.ID {
					e.Gaps, e.Tokens, e.Scrape.Generated = e.Gaps-was.Gaps, e.Tokens-was.Tokens, e.Scrape.Generated-was.Scrape.Generated
				}
			}
		}
	}}
}

// Counters that begin anew, and numbers that are none, order nothing absurd and take nothing away.
func TestOddNumbers(t *testing.T) {
	plain := newTrial(8, 18).run(t)
	nan := math.NaN()
	for name, faults := range map[string]sim.Faults{"reset": reset(), "NaN": during(func(o, _ *decide.Observation) {
		r := &o.Routers
		r.Arrivals, r.Uncached, r.Output = nan, nan, math.Inf(1)
		for i := range o.Engines {
			e := &o.Engines[i]
			e.Gaps, e.Scrape.Running, e.Scrape.KVUsage, e.Scrape.Generated = nan, nan, nan, math.Inf(-1)
		}
	})} {
		x := newTrial(8, 18)
		x.Faults = faults
		x.run(t)
		if n := x.downs(faultFrom+time.Second, faultTo+time.Minute); n != 0 {
			t.Errorf("%s: %d steps down", name, n)
		}
		for role, n := range x.most {
			if n > plain.most[role]+2 {
				t.Errorf("%s: %d %s replicas are ordered, %d without the fault", name, n, role, plain.most[role])
			}
		}
	}
}

// While nobody says what runs nothing is ordered or taken away, and nothing is made up for twice afterwards.
func TestAnOldViewOfTheReplicas(t *testing.T) {
	plain, x := newTrial(8, 18).run(t), newTrial(8, 18)
	x.Faults = during(func(o, before *decide.Observation) { o.Replicas = before.Replicas })
	x.run(t)
	for i, s := range x.done {
		if x.when[i] > faultFrom+30*time.Second && x.when[i] <= faultTo && s.Do == decide.Scale {
			t.Errorf("at %v: %+v by a view of %v ago", x.when[i], s, x.when[i]-faultFrom)
		}
	}
	for role, n := range x.most {
		if n > plain.most[role]+2 {
			t.Errorf("%d %s replicas are ordered, %d without the fault", n, role, plain.most[role])
		}
	}
}

// Replicas that cannot start are not ordered again and again.
func TestStartsThatFail(t *testing.T) {
	plain := newTrial(8, 18).run(t)
	for name, fault := range map[string]func(x *trial){
		"unschedulable": func(x *trial) {
			x.Faults.Stuck = func(_ decide.Role, now time.Duration) string {
				return map[bool]string{true: "Unschedulable"}[now > faultFrom && now < faultTo]
			}
		},
		"slow and crashing": func(x *trial) { x.Failed = .6 },
	} {
		x := newTrial(8, 18)
		fault(x)
		x.run(t)
		for role, n := range x.most {
			if n > 2*plain.most[role] {
				t.Errorf("%s: %d %s replicas are ordered, %d without the fault", name, n, role, plain.most[role])
			}
		}
	}
}

// What somebody else orders is taken over, and left alone for a minute.
func TestSomebodyElseScales(t *testing.T) {
	x := newTrial(5, 5)
	x.Faults.Outside = func(role decide.Role, ordered int, now time.Duration) int {
		if now == faultFrom && role == decide.Decode {
			return ordered + 3
		}
		return ordered
	}
	x.run(t)
	for i, s := range x.done {
		if s.Role == decide.Decode && x.when[i] >= faultFrom && x.when[i] < faultFrom+time.Minute {
			t.Errorf("at %v: %+v", x.when[i], s)
		}
	}
	if x.downs(faultFrom+time.Minute, 33*time.Minute) == 0 {
		t.Error("what nobody needs stays for ever")
	}
}
