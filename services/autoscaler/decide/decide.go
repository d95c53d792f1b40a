// Package decide says how many engines of each role a pool needs, and why.
//
// It is pure: state and observation in, state and decision out; the time is an argument. It knows no router, no engine
// and no Kubernetes, acts on nothing, and never takes what is missing for zero: what it cannot see it holds.
package decide

import "time"

// Role is what an engine is used for.
type Role string

// The roles. A pool has engines for Both, or some for Prefill and some for Decode.
const (
	Prefill Role = "prefill"
	Decode  Role = "decode"
	Both    Role = "both"
)

// State is what Decide remembers of one pool. It is a plain value that survives encoding as JSON; the zero State with
// any Policy is the beginning.
type State struct {
	Policy Policy `json:"policy"`
}

// Decide folds an observation in and says what is wanted. It changes neither s nor o. Cost: microseconds.
func (s State) Decide(o Observation, now time.Time) (State, Decision) {
	d := Decision{At: now, Mode: s.Policy.Mode, Roles: make(map[Role]RoleDecision)}
	for role, r := range o.Replicas {
		d.Roles[role] = RoleDecision{Now: r.Desired, Need: r.Desired, Target: r.Desired, Rule: "hold"}
	}
	return s, d
}
