package scalers

import (
	"math"
	"slices"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Minute is the grain of a Plan.
const Minute = time.Minute

// Plan is how many replicas of each role are to be ready in each minute of the arrivals. They are ordered a start-up
// time ahead.
type Plan struct {
	Ready map[decide.Role][]int `json:"ready"`
	Calls int                   `json:"calls,omitempty"` // runs of the simulator that it took to find it
}

// clone copies a plan.
func (p Plan) clone() Plan {
	c := Plan{Ready: make(map[decide.Role][]int, len(p.Ready)), Calls: p.Calls}
	for role, ready := range p.Ready {
		c.Ready[role] = slices.Clone(ready)
	}
	return c
}

// Fluid is a lower bound, rounded up: in each minute the replicas of prefill and of decode that the mean work of that
// minute keeps busy, every one of them all the time, as if work were a fluid and waited for nobody. A replica that would
// go and be needed again within a start-up time stays, as the two cost the same.
func Fluid(t *Truth, p decide.Policy, startup time.Duration) Plan {
	p = filled(p)
	s := foresee(t, p)
	return Plan{Ready: map[decide.Role][]int{
		decide.Prefill: bridge(minutes(s.busy, p, decide.Prefill), startup),
		decide.Decode:  bridge(minutes(s.occupied, p, decide.Decode), startup),
	}}
}

// minutes are the means of slots, rounded up and bounded.
func minutes(busy []float64, p decide.Policy, role decide.Role) []int {
	per := int(Minute / slot)
	var ready []int
	for chunk := range slices.Chunk(busy, per) {
		sum := 0.
		for _, b := range chunk {
			sum += b
		}
		ready = append(ready, bounded(p, role, int(math.Ceil(sum/float64(len(chunk))))))
	}
	return ready
}

// bridge fills the dips that are shorter than a start-up.
func bridge(ready []int, startup time.Duration) []int {
	reach := int(startup / Minute)
	filled := slices.Clone(ready)
	for i := range ready {
		for j := i + 2; j <= min(i+1+reach, len(ready)-1); j++ {
			level := min(ready[i], ready[j])
			for k := i + 1; k < j; k++ {
				filled[k] = max(filled[k], level)
			}
		}
	}
	return filled
}

// planned is offline-optimum: it follows a Plan.
type planned struct {
	policy decide.Policy
	plan   Plan
	ahead  time.Duration
	begin  time.Time
}

func newPlanned(s Setup) *planned {
	p := &planned{policy: s.Policy, ahead: lead(s.Startup), begin: s.Truth.Begin}
	if s.Truth.Plan != nil {
		p.plan = s.Truth.Plan.clone()
	} else {
		p.plan = Fluid(s.Truth, s.Policy, s.Startup)
	}
	return p
}

// Decide wants the most that the plan has between now and what is ordered now being ready. A role that the plan does not
// name gets what prefill and decode have together.
func (p *planned) Decide(o decide.Observation, now time.Time) map[decide.Role]int {
	if p.begin.IsZero() {
		p.begin = now
	}
	at := func(role decide.Role) int {
		if len(p.plan.Ready[role]) == 0 {
			return 0
		}
		return most(p.plan.Ready[role], now.Sub(p.begin), p.ahead, Minute)
	}
	wanted := make(map[decide.Role]int, len(o.Replicas))
	for role := range o.Replicas {
		n := at(role)
		if _, named := p.plan.Ready[role]; !named && role == decide.Both {
			n = at(decide.Prefill) + at(decide.Decode)
		}
		wanted[role] = bounded(p.policy, role, n)
	}
	return wanted
}
