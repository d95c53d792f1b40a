package elastic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/scalers"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const offline = "offline-optimum"

// Policies are the names of all, ours first.
func Policies() []string { return append([]string{Ours}, scalers.Names()...) }

// sees says whether a policy knows what will come and what engines can do.
func sees(policy string) bool {
	return slices.Contains([]string{"static-peak", "clairvoyant", offline}, policy)
}

// Tunable says whether a policy has a tuned variant.
func Tunable(policy string) bool { return policy != Ours && !sees(policy) }

// byPrometheus are those whose originals read engines' metrics from Prometheus, at its usual interval.
func byPrometheus(policy string) bool {
	return slices.Contains([]string{"hpa-waiting", "llmd-token", "llmd-slo", "wva-v2", "dynamo"}, policy)
}

const prometheusAge = 15 * time.Second

// ours does what the service does with a decision: drains first, then orders with their victims.
type ours struct {
	state decide.State
	last  decide.Decision
}

// Steps implements sim.Scaler.
func (u *ours) Steps(o decide.Observation, now time.Time) []decide.Step {
	u.state, u.last = u.state.Decide(o, now)
	return decide.Steps(u.state.Policy, o, u.last)
}

// decisions tells of the last decision of a scaler that explains itself; nil of others.
func decisions(s sim.Scaler) func() *decide.Decision {
	if u, ok := s.(*ours); ok {
		return func() *decide.Decision { return &u.last }
	}
	return func() *decide.Decision { return nil }
}

// rival orders what another autoscaler wants, whenever that changes.
type rival struct{ scalers.Scaler }

// Steps implements sim.Scaler.
func (r rival) Steps(o decide.Observation, now time.Time) (steps []decide.Step) {
	wanted := r.Decide(o, now)
	for _, role := range roles {
		if to, ok := wanted[role]; ok && to != o.Replicas[role].Desired {
			steps = append(steps, decide.Step{Do: decide.Scale, Role: role, From: o.Replicas[role].Desired, To: to})
		}
	}
	return steps
}

// employ gives a fleet the cell's scaler. One that sees the truth has what it wants from the beginning.
func (c *Cell) employ(e *sim.Elastic, t Truth, plan *scalers.Plan) error {
	policy := Policy(c.SLO, c.Startup, c.Headroom, c.Service)
	if c.Policy == Ours {
		e.Scaler = &ours{state: decide.State{Policy: policy}}
		return nil
	}
	e.Gentle = true
	setup := scalers.Setup{Policy: policy, Startup: c.Startup}
	if sees(c.Policy) {
		setup.Truth = c.truth(t)
		setup.Truth.Plan = plan
	}
	s, err := scalers.New(c.Policy, c.Variant, setup)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name(), err)
	}
	if byPrometheus(c.Policy) {
		e.Scraped = prometheusAge
	}
	e.Scaler = rival{s}
	if sees(c.Policy) {
		first := decide.Observation{Replicas: map[decide.Role]decide.Replicas{decide.Prefill: {}, decide.Decode: {}}}
		e.Initial = s.Decide(first, sim.Begin())
	}
	return nil
}

// truth is what those see that know the future.
func (c *Cell) truth(t Truth) *scalers.Truth {
	all := &scalers.Truth{Model: t.Model(), Begin: sim.Begin()}
	next := c.Work.Requests(c.Seed)
	for r, ok := next(); ok && r.At < c.Work.Until; r, ok = next() {
		all.Arrivals = append(all.Arrivals, scalers.Arrival{At: r.At, Prompt: r.Prompt, Uncached: r.Prompt - r.Cached, Output: r.Output})
	}
	return all
}

// reach is what offline-optimum must: the share of good answers among the requests that can be served in time.
const reach = .99

// best is the cheapest plan that a search finds which reaches that; the best tried, where none does.
func (c *Cell) best(ctx context.Context, t Truth) (scalers.Plan, error) {
	truth := c.truth(t)
	feasible := 0
	c.Work.of(c.Seed, func(r *Request) {
		if fits(r, t, c.SLO) {
			feasible++
		}
	})
	attain := func(p scalers.Plan) (share, gpu float64, err error) {
		m := newMeter(c)
		m.enough = func() bool { return m.late > int((1-reach)*float64(feasible)) }
		r, err := c.once(m, t, &p)
		if err != nil {
			return 0, 0, err
		}
		return r.Metrics.Feasible, r.Metrics.GPU, nil
	}
	start := scalers.Fluid(truth, Policy(c.SLO, c.Startup, 0, c.Service), c.Startup)
	plan, err := scalers.BestFound(ctx, start, attain, reach)
	if errors.Is(err, scalers.ErrUnreached) {
		err = nil
	}
	return plan, err
}
