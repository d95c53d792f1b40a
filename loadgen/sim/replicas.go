package sim

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// stateOf is where a replica is in its life.
type stateOf uint8

const (
	starting stateOf = iota
	serving
	draining // routers pass it over
	gone
	states
)

// role is the replicas of one role.
type role struct {
	Spent
	name    decide.Role
	number  int
	rng     *rand.Rand // of start-up times, one draw a replica: equal orders, equal times, whatever the policy
	ordered int
	count   [states]int
	counted time.Duration // until when Spent counts
	rising  int           // direction of the last change of what is ordered and does not drain
	level   int           // that
	last    time.Duration // of the last order
	starts  []time.Duration
}

// pod is one replica.
type pod struct {
	engine  *engine
	role    *role
	state   stateOf
	created time.Duration
	due     time.Duration // ready, if all goes well
	crashes bool          // before that
	stuck   string        // why it does not start at all
	leaving bool          // taken away, and answers what it has under way
}

func (p *pod) serving() bool { return p.state == serving || p.state == draining }

// turn changes a replica's state and the counts.
func (x *elastic) turn(p *pod, to stateOf) {
	p.role.pass(x.f.clock.now, x.Until)
	p.role.count[p.state]--
	p.role.count[to]++
	p.state = to
	p.role.mostNow()
}

func (r *role) mostNow() {
	r.Most = max(r.Most, r.count[starting]+r.count[serving]+r.count[draining])
}

// pass counts what replicas cost up to now, but not beyond the end.
func (r *role) pass(now, until time.Duration) {
	passed := (min(now, until) - r.counted).Seconds()
	if passed <= 0 {
		return
	}
	r.counted = min(now, until)
	r.Seconds += passed * float64(r.count[starting]+r.count[serving]+r.count[draining])
	r.Spent.Starting += passed * float64(r.count[starting])
	r.Spent.Draining += passed * float64(r.count[draining])
}

// order begins a replica.
func (x *elastic) order(r *role) *pod {
	now := x.f.clock.now
	e := &engine{number: len(x.f.engines), life: 1, role: fleet.Role(r.name)}
	x.f.engines = append(x.f.engines, e)
	took := float64(x.Startup) * math.Exp(.1*r.rng.NormFloat64())
	p := &pod{engine: e, role: r, created: now}
	if luck := r.rng.Float64(); luck < x.Failed {
		took *= 3
		p.crashes = luck < x.Failed/2
	}
	p.due = now + time.Duration(took)
	x.pods = append(x.pods, p)
	r.pass(now, x.Until)
	r.count[starting]++
	r.ordered++
	r.Spent.Ordered++
	r.mostNow()
	if stuck := x.Faults.Stuck; stuck != nil {
		p.stuck = stuck(r.name, now)
	}
	if p.stuck == "" && now > 0 {
		x.f.clock.at(p.due, action{kind: started, engine: e.number})
	}
	return p
}

// ready lets a replica serve.
func (x *elastic) ready(p *pod) {
	if p.state != starting {
		return // taken away meanwhile
	}
	now := x.f.clock.now
	if now > 0 {
		p.role.starts = append(p.role.starts, now-p.created)
	}
	e := p.engine
	e.core = x.newCore(e)
	x.turn(p, serving)
	x.f.router.index.add(e.number, engineID(e.number), e.core.Options().Blocks, x.Shared)
	x.show()
	if now > 0 {
		x.release()
		x.f.line.serve()
	}
}

// remove takes a replica away at once. What it has under way is lost.
func (x *elastic) remove(p *pod) {
	if p.state == starting {
		p.role.Unused++
	}
	was := p.serving()
	x.turn(p, gone)
	if !was {
		return
	}
	e := p.engine
	e.down, e.busy = true, false
	x.show()
	for _, calls := range [2][]*call{e.calls, e.legs} {
		for _, c := range slices.Clone(calls) {
			x.abandon(c)
		}
	}
	e.core, e.calls, e.legs = nil, nil, nil
	x.f.router.index.remove(e.number)
}

// abandon ends a request whose replica is gone, on both engines.
func (x *elastic) abandon(c *call) {
	for _, at := range [2]int{c.booked.engine, c.booked.prefill} {
		if core := x.f.engines[at].core; core != nil {
			core.Abort(c.request.ID)
			core.Unpin(c.request.ID)
		}
	}
	x.f.engines[c.booked.engine].leave(c)
	x.f.engines[c.booked.prefill].leaveLeg(c)
	x.unbook(c)
}

// gather takes away what has drained after it was taken out of the order: the router has nothing under way there, and
// nobody fetches anything from it.
func (x *elastic) gather() {
	if !slices.ContainsFunc(x.pods, func(p *pod) bool { return p.leaving && p.state == draining }) {
		return
	}
	loads := x.f.router.pool.Loads()
	for _, p := range x.pods {
		if p.leaving && p.state == draining && loads[engineID(p.engine.number)].Active == 0 && p.engine.core.Stats().Pinned == 0 {
			x.remove(p)
		}
	}
}

// show changes the registry: routers see engines that serve, and which of them drain.
func (x *elastic) show() {
	r := x.f.router
	view := *r.view
	view.Engines, view.Draining = make(map[string]fleet.Engine, len(view.Engines)+1), maps.Clone(view.Draining)
	clear(view.Draining)
	if view.Draining == nil {
		view.Draining = map[string]bool{}
	}
	for _, p := range x.pods {
		if !p.serving() {
			continue
		}
		id := engineID(p.engine.number)
		e, known := r.view.Engines[id]
		if !known {
			e = fleet.Engine{ID: id, Name: id, Pool: poolID, Role: p.engine.role, Ranks: 1, BlockSize: x.f.o.BlockSize,
				Blocks: p.engine.core.Options().Blocks, Generation: 1, State: fleet.OK}
		}
		view.Engines[id] = e
		if p.state == draining {
			view.Draining[id] = true
		}
	}
	r.view = &view
}

func engineID(number int) string { return fmt.Sprintf("engine-%04d", number) }

// step carries out what the scaler wants.
func (x *elastic) step(s *decide.Step, o *decide.Observation) {
	r := x.roles[s.Role]
	if r == nil {
		return
	}
	switch s.Do {
	case decide.Drain, decide.Undrain:
		from, to := serving, draining
		if s.Do == decide.Undrain {
			from, to = to, from
		}
		if p := x.named(s.Engine); p != nil && p.role == r && p.state == from && !p.leaving {
			x.turn(p, to)
			x.show()
			x.f.line.serve()
		}
	case decide.Scale:
		x.scale(r, s, o)
	}
	r.judge()
}

// judge notes a change of direction.
func (r *role) judge() {
	level := r.ordered - r.count[draining]
	direction := cmp.Compare(level, r.level)
	if r.level != 0 && direction != 0 {
		if r.rising == -direction {
			r.Flips++
		}
		r.rising = direction
	}
	r.level = level
}

func (x *elastic) named(id string) *pod {
	n, ok := x.f.router.index.numbers[id]
	if !ok {
		return nil
	}
	return x.pods[n]
}

// scale carries out an order. One that was made from another number than is ordered now is refused, as the API server
// refuses an old resource version.
func (x *elastic) scale(r *role, s *decide.Step, o *decide.Observation) {
	if s.From != r.ordered {
		r.Conflicts++
		return
	}
	to := max(0, min(s.To, x.Most))
	now := x.f.clock.now
	if to > r.ordered && r.last > 0 && o.Replicas[r.name].Read.Before(x.f.router.time(r.last)) {
		r.Duplicates += to - r.ordered
	}
	if to != r.ordered {
		r.last = now
	}
	x.bring(r, to, s.Victims)
}

// bring starts and takes away replicas until there are so many.
func (x *elastic) bring(r *role, to int, victims []string) {
	for r.ordered < to {
		x.order(r)
	}
	if r.ordered == to {
		return
	}
	for _, p := range x.victims(r, victims)[:r.ordered-to] {
		r.ordered--
		if p.state == starting || !x.Gentle {
			x.remove(p)
			continue
		}
		p.leaving = true
		if p.state == serving {
			x.turn(p, draining)
			x.show()
		}
	}
}

// victims are a role's replicas in the order in which a ReplicaSet deletes them: those that are not ready, then those
// of the least deletion cost, which the scaler has named, then the youngest.
func (x *elastic) victims(r *role, named []string) (all []*pod) {
	for _, p := range x.pods {
		if p.role == r && p.state != gone && !p.leaving {
			all = append(all, p)
		}
	}
	rank := func(p *pod) int {
		switch {
		case p.state == starting:
			return 0
		case slices.Contains(named, engineID(p.engine.number)):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b *pod) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.created, a.created), cmp.Compare(b.engine.number, a.engine.number))
	})
	return all
}
