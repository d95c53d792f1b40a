package enginefleet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// SetPolicy changes the policy.
func (f *Fleet) SetPolicy(p decide.Policy) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.policy = p
}

// Pools is for the autoscaler: the one pool, and what runs of it.
func (f *Fleet) Pools() map[string]autoscaler.Managed {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	m := autoscaler.Managed{Policy: f.policy, Replicas: make(map[decide.Role]decide.Replicas), State: f.state}
	for role, all := range f.replicas {
		r := decide.Replicas{Read: now, Desired: len(all), Starts: f.starts[role]}
		for _, x := range all {
			if x.engine != nil {
				r.Ready++
			} else {
				r.Starting = append(r.Starting, decide.Starting{Created: x.born})
			}
		}
		m.Replicas[role] = r
		delete(f.starts, role) // told once
	}
	return map[string]autoscaler.Managed{f.pool: m}
}

// Scale starts or stops engines. Of those that go, the victims are first, then those that start, the latest first.
func (f *Fleet) Scale(_ context.Context, o autoscaler.Order) error {
	f.mu.Lock()
	all, ours := f.replicas[o.Role]
	if !ours || o.Pool != f.pool || o.To < 0 {
		f.mu.Unlock()
		return fmt.Errorf("scale %s of %s to %d: no such role", o.Role, o.Pool, o.To)
	}
	if len(all) != o.From {
		f.mu.Unlock()
		return fmt.Errorf("scale %s from %d: there are %d: %w", o.Role, o.From, len(all), autoscaler.ErrConflict)
	}
	f.usage.add(f.counts(), time.Now())
	for range o.To - o.From {
		f.begin(o.Role, f.order(o.Role))
	}
	var going []*enginesim.Engine
	for range o.From - o.To {
		at := victim(f.replicas[o.Role], o.Victims)
		r := f.replicas[o.Role][at]
		if r.cancel(); r.engine != nil {
			going = append(going, r.engine)
		}
		f.replicas[o.Role] = slices.Delete(f.replicas[o.Role], at, at+1)
	}
	f.changed()
	f.mu.Unlock()
	for _, engine := range going {
		f.end(engine)
	}
	return nil
}

// victim chooses the next to go.
func victim(all []*replica, victims []string) int {
	if i := slices.IndexFunc(all, func(r *replica) bool { return r.engine != nil && slices.Contains(victims, r.id) }); i >= 0 {
		return i
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].engine == nil {
			return i
		}
	}
	return len(all) - 1
}

// end stops an engine at once, as a container that is killed.
func (f *Fleet) end(engine *enginesim.Engine) {
	s := engine.Stats()
	f.mu.Lock()
	f.lost += s.Running + s.Waiting
	f.mu.Unlock()
	engine.Close()
}

// Keep keeps the state for an autoscaler that starts later.
func (f *Fleet) Keep(_ context.Context, _ string, state []byte, _ decide.Decision) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = state
	return nil
}

// Lost is how many requests were under way on engines when they were stopped.
func (f *Fleet) Lost() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

// Busy is how many engines have requests now.
func (f *Fleet) Busy() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, all := range f.replicas {
		for _, r := range all {
			if r.engine != nil && r.engine.Stats().Running > 0 {
				n++
			}
		}
	}
	return n
}

// Count is how many engines of a role there are.
type Count struct {
	Ordered int // with those that start
	Running int
}

// Counts tells how many engines there are now.
func (f *Fleet) Counts() map[decide.Role]Count {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts()
}

// counts is Counts. The lock is held.
func (f *Fleet) counts() map[decide.Role]Count {
	all := make(map[decide.Role]Count, len(f.replicas))
	for role, list := range f.replicas {
		c := Count{Ordered: len(list)}
		for _, r := range list {
			if r.engine != nil {
				c.Running++
			}
		}
		all[role] = c
	}
	return all
}

// Used is how long engines were ordered so far, by role, starting and draining included.
func (f *Fleet) Used() map[decide.Role]time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.usage.add(f.counts(), time.Now())
	return f.usage.copy()
}

// usage adds up how long engines were ordered.
type usage struct {
	at   time.Time
	used map[decide.Role]time.Duration
}

// add counts the time since the last add, in which there were so many.
func (u *usage) add(n map[decide.Role]Count, now time.Time) {
	if u.used == nil {
		u.used, u.at = make(map[decide.Role]time.Duration), now
	}
	for role, c := range n {
		u.used[role] += time.Duration(c.Ordered) * now.Sub(u.at)
	}
	u.at = now
}

func (u *usage) copy() map[decide.Role]time.Duration {
	all := make(map[decide.Role]time.Duration, len(u.used))
	for role, d := range u.used {
		all[role] = d
	}
	return all
}
