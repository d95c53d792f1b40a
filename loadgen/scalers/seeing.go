package scalers

import (
	"slices"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// static is static-peak: of each role as many as the worst moment of the true arrivals needs, from the beginning to the
// end. Nobody has this hindsight; it is the bound of what a fixed fleet can do.
type static struct {
	policy decide.Policy
	needs  needs
}

func newStatic(s Setup) *static { return &static{policy: s.Policy, needs: foresee(s.Truth, s.Policy)} }

func (s *static) Decide(o decide.Observation, _ time.Time) map[decide.Role]int {
	wanted := make(map[decide.Role]int, len(o.Replicas))
	for role := range o.Replicas {
		wanted[role] = bounded(s.policy, role, slices.Max(s.needs.of(role)))
	}
	return wanted
}

// clairvoyant knows the arrivals of one start-up time ahead, and sizes for the most that they will need at once: a
// replica ordered now is ready then, and one that will be needed again before another could start is kept.
type clairvoyant struct {
	policy decide.Policy
	ahead  time.Duration
	begin  time.Time
	needs  map[decide.Role][]int
	all    needs
}

func newClairvoyant(s Setup) *clairvoyant {
	return &clairvoyant{
		policy: s.Policy, ahead: lead(s.Startup), begin: s.Truth.Begin, all: foresee(s.Truth, s.Policy), needs: make(map[decide.Role][]int),
	}
}

// lead is how long before its need a replica is ordered: starts take up to a tenth more than foreseen, and orders are
// placed every slot.
func lead(startup time.Duration) time.Duration { return startup*11/10 + 2*slot }

func (c *clairvoyant) Decide(o decide.Observation, now time.Time) map[decide.Role]int {
	if c.begin.IsZero() {
		c.begin = now
	}
	wanted := make(map[decide.Role]int, len(o.Replicas))
	for role := range o.Replicas {
		if c.needs[role] == nil {
			c.needs[role] = c.all.of(role)
		}
		wanted[role] = bounded(c.policy, role, most(c.needs[role], now.Sub(c.begin), c.ahead, slot))
	}
	return wanted
}

// most is the greatest of values, one for each grain of time, from now to ahead of it. Past their end the last one holds.
func most(values []int, now, ahead, grain time.Duration) int {
	last := len(values) - 1
	from, to := min(last, max(0, int(now/grain))), min(last, max(0, int((now+ahead)/grain)))
	return slices.Max(values[from : to+1])
}
