package elastic

import (
	"fmt"
	"time"

	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// ours is what the service does with a decision: the drains first, then orders with their victims.
type ours struct {
	state decide.State
	last  decide.Decision
}

// Steps implements sim.Scaler.
func (u *ours) Steps(o decide.Observation, now time.Time) []decide.Step {
	u.state, u.last = u.state.Decide(o, now)
	return decide.Steps(u.state.Policy, o, u.last)
}

// decisions tells of the last decision of a scaler that makes some; nil of others.
func decisions(s sim.Scaler) func() *decide.Decision {
	if u, ok := s.(*ours); ok {
		return func() *decide.Decision { return &u.last }
	}
	return func() *decide.Decision { return nil }
}

// wanting is any that says how many replicas it wants.
type wanting interface {
	Decide(o decide.Observation, now time.Time) map[decide.Role]int
}

// rival orders what a published autoscaler wants, whenever that changes. Replicas that are taken away drain first.
type rival struct{ wanting }

// Steps implements sim.Scaler.
func (r rival) Steps(o decide.Observation, now time.Time) (steps []decide.Step) {
	wanted := r.Decide(o, now)
	for _, role := range [2]decide.Role{decide.Prefill, decide.Decode} {
		if to, ok := wanted[role]; ok && to != o.Replicas[role].Desired {
			steps = append(steps, decide.Step{Do: decide.Scale, Role: role, From: o.Replicas[role].Desired, To: to})
		}
	}
	return steps
}

// fixed wants the same always.
type fixed map[decide.Role]int

// Decide implements wanting.
func (f fixed) Decide(decide.Observation, time.Time) map[decide.Role]int { return f }

// scaler gives the fleet the cell's scaler.
func (c *Cell) scaler(e *sim.Elastic, _ Truth) error {
	policy := Policy(c.SLO, c.Startup, c.Headroom, c.Service)
	switch c.Policy {
	case Ours:
		e.Scaler = &ours{state: decide.State{Policy: policy}}
		return nil
	case static:
		e.Gentle, e.Scaler = true, rival{fixed{decide.Prefill: 10, decide.Decode: 16}}
		e.Initial = map[decide.Role]int{decide.Prefill: 10, decide.Decode: 16}
		return nil
	}
	return fmt.Errorf("policy %q is not known", c.Policy)
}

// Policies are the names of all, ours first.
func Policies() []string { return []string{Ours, static} }

// static is a fleet of one size, to have something that needs no thought.
const static = "static"

// Tunable says whether a policy has a tuned variant.
func Tunable(policy string) bool { return policy != Ours && policy != static }
