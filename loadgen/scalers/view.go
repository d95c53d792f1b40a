package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// view is an observation as one role sees it.
type view struct {
	role    decide.Role
	routers *decide.Routers
	engines []decide.Engine // of the role, that serve and do not drain
	others  []decide.Engine // that serve another role
	current int             // ordered, without those that drain
}

func newView(o *decide.Observation, role decide.Role) *view {
	v := &view{role: role, routers: &o.Routers, current: o.Replicas[role].Desired}
	for _, e := range o.Engines {
		switch {
		case e.Role == role && e.Draining:
			v.current--
		case e.Serving && e.Role == role:
			v.engines = append(v.engines, e)
		case e.Serving && !e.Draining:
			v.others = append(v.others, e)
		}
	}
	v.current = max(0, v.current)
	return v
}

// decodes says whether the role's engines decode.
func (v *view) decodes() bool { return v.role != decide.Prefill }

// control scales one role.
type control interface {
	want(v *view, now time.Time) int
}

// apart scales each role for itself.
type apart struct {
	policy decide.Policy
	make   func(*view) control // begins with a role
	of     map[decide.Role]control
}

func (a *apart) Decide(o decide.Observation, now time.Time) map[decide.Role]int {
	wanted := make(map[decide.Role]int, len(o.Replicas))
	for role := range o.Replicas {
		v := newView(&o, role)
		if a.of[role] == nil {
			a.of[role] = a.make(v)
		}
		wanted[role] = bounded(a.policy, role, a.of[role].want(v, now))
	}
	return wanted
}
