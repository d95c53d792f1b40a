package sim

import "time"

// What a fleet that comes and goes notes of a request on its way.

// sent notes that a request has left the router.
func (x *elastic) sent(c *call) {
	c.dispatched = x.f.clock.now
	x.hearing.sent(c)
}

// handed notes that a prompt is at the engine that computes it for another.
func (x *elastic) handed(c *call, e *engine) {
	s := e.core.Stats()
	c.quiet = s.Running+s.Waiting == 1 && !e.busy
	c.legSlot = len(e.legs)
	e.legs = append(e.legs, c)
}

// computed notes that the prompt is done, and how long it took where nothing else was under way.
func (x *elastic) computed(c *call, now time.Duration) {
	x.f.engines[c.booked.prefill].leaveLeg(c)
	c.leftHit = c.hit
	if c.quiet {
		c.prefilled = now - c.dispatched
	}
}

// leaveLeg takes a call out of those whose prompts the engine computes.
func (e *engine) leaveLeg(c *call) {
	if c.legSlot >= len(e.legs) || e.legs[c.legSlot] != c {
		return
	}
	last := len(e.legs) - 1
	e.legs[c.legSlot] = e.legs[last]
	e.legs[c.legSlot].legSlot = c.legSlot
	e.legs[last] = nil
	e.legs = e.legs[:last]
}
