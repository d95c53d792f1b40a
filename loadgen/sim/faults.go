package sim

import (
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// Outage is an engine that is lost for a while. Its requests end without an answer; it returns with an empty cache.
type Outage struct {
	Engine int           `json:"engine"` // its number
	From   time.Duration `json:"from"`   // virtual time
	To     time.Duration `json:"to"`     // not after From: it never returns
}

// How long the registry takes to see that an engine is gone, and that it is back: as ingest has it, which probes each
// 5 s and waits for 30. Until then the router learns by requests that fail.
const (
	goneAfter = 30 * time.Second
	backAfter = 5 * time.Second
)

// What a router may try again, as the service has it: each request twice, and a tenth of all beside ten.
const (
	maxRetries = 2
	retryShare = 0.1
	retryBurst = 10
)

func (o Options) checkOutages() error {
	if len(o.Outages) > 0 && o.Prefill+o.Decode > 0 {
		return fmt.Errorf("outages are simulated of engines of role both alone")
	}
	for _, out := range o.Outages {
		if out.Engine < 0 || out.Engine >= o.Engines() || out.From < 0 {
			return fmt.Errorf("outage of engine %d from %v: there are engines 0 to %d", out.Engine, out.From, o.Engines()-1)
		}
	}
	return nil
}

// planOutages schedules what befalls the engines.
func (f *world) planOutages() {
	for _, o := range f.o.Outages {
		f.clock.at(o.From, action{kind: lost, engine: o.Engine})
		if o.To > o.From {
			f.clock.at(o.To, action{kind: returned, engine: o.Engine})
		}
	}
}

// crash ends an engine's life. Requests that have no first byte are sent again elsewhere, the others fail.
func (f *world) crash(e *engine) {
	if e.down || f.client.over() {
		return
	}
	e.down, e.busy, e.preempted = true, false, e.preempted+e.core.Stats().Preemptions
	e.life++
	e.core, e.wire = f.newCore(e), wire{}
	f.clock.at(f.clock.now+goneAfter, action{kind: missed, engine: e.number})
	calls := e.calls
	e.calls = nil
	for _, c := range calls {
		c.booked.held.Failed(f.router.time(f.clock.now))
		if c.output > 0 {
			c.booked.held.Release(f.router.time(f.clock.now), true, false)
			f.finish(c, true)
		} else if f.again(c) {
			f.decode(c)
		}
	}
}

// restore begins an engine's next life.
func (f *world) restore(e *engine) {
	if !e.down {
		return
	}
	e.down = false
	f.router.index.folds[e.number].Reset()
	f.clock.at(f.clock.now+backAfter, action{kind: visible, batch: &batch{engine: e.number, life: e.life}})
}

// miss lets the registry see that an engine is gone.
func (f *world) miss(e *engine) {
	if e.down && !f.client.over() {
		f.record(e.number, f.router.index.lives[e.number], fleet.Gone)
	}
}

// show makes a batch visible. The first of a new life tells of it.
func (f *world) show(b *batch) {
	n, life := b.engine, b.life
	if f.router.index.apply(b) {
		f.record(n, life, fleet.OK)
	}
}

// record changes an engine's record in the registry.
func (f *world) record(engine int, life uint64, state fleet.State) {
	for _, r := range f.routers {
		r.tell(engine, life, state)
	}
}

// again books another engine for a request that was not answered, or ends it.
func (f *world) again(c *call) bool {
	old := c.booked
	if c.without == nil {
		c.without = map[string]bool{}
	}
	c.without[old.held.Engine.ID] = true
	turn := c.session.turn()
	p := f.prompts.of[idOf(turn.Prompt)]
	if c.retries == maxRetries || !f.takeRetry() || !f.book(c, p) {
		old.held.Release(f.router.time(f.clock.now), false, false)
		f.finish(c, true)
		return false
	}
	old.held.Release(f.router.time(f.clock.now), false, false)
	c.retries++
	return true
}

func (f *world) takeRetry() bool {
	if f.retried+1 > retryBurst {
		return false
	}
	f.retried++
	return true
}

// enter and leave keep the calls of an engine, so that all of them can be told when it is lost.
func (e *engine) enter(c *call) {
	c.slot = len(e.calls)
	e.calls = append(e.calls, c)
}

func (e *engine) leave(c *call) {
	if c.slot >= len(e.calls) || e.calls[c.slot] != c {
		return // it has gone with the engine's last life
	}
	last := len(e.calls) - 1
	e.calls[c.slot] = e.calls[last]
	e.calls[c.slot].slot = c.slot
	e.calls[last] = nil
	e.calls = e.calls[:last]
}
