package sim

import "time"

// client sends the sessions of a workload, stage by stage.
type client struct {
	f     *world
	w     *Workload
	stage int

	began    []time.Duration // of stages
	ends     []time.Duration
	next     int // session of a closed stage that is begun next
	left     int // turns of the stage that have not ended
	inFlight int
	waiting  []*session // above the bound of requests in flight, oldest first
	sent     uint64
}

func (c *client) over() bool { return c.stage >= len(c.w.Stages) }

// advance begins the next stage that has anything in it.
func (c *client) advance() {
	now := c.f.clock.now
	if c.stage >= 0 {
		c.ends = append(c.ends, now)
	}
	for c.stage++; !c.over(); c.stage++ {
		c.began = append(c.began, now)
		stage := &c.w.Stages[c.stage]
		for _, s := range stage.Sessions {
			c.left += len(s.Turns)
		}
		if c.left == 0 {
			c.ends = append(c.ends, now)
			continue
		}
		c.next = len(stage.Sessions)
		if stage.Concurrency > 0 {
			c.next = min(stage.Concurrency, c.next)
		}
		for _, s := range stage.Sessions[:c.next] {
			at := s.At
			if stage.Concurrency > 0 {
				at = 0
			}
			c.begin(&s, at)
		}
		return
	}
}

func (c *client) begin(s *Session, at time.Duration) {
	if len(s.Turns) > 0 {
		c.f.clock.at(c.f.clock.now+at+s.Turns[0].Gap, action{kind: arrive, client: &session{turns: s.Turns, tenant: s.Tenant}})
	}
}

// arrive sends a session's next turn, or lets it wait for others to end.
func (c *client) arrive(s *session) {
	if c.w.InFlight > 0 && c.inFlight >= c.w.InFlight {
		c.waiting = append(c.waiting, s)
		return
	}
	c.inFlight++
	c.f.send(s)
}

// ended goes on after an answer.
func (c *client) ended(s *session) {
	c.inFlight--
	c.left--
	if s.next < len(s.turns) {
		c.f.clock.at(c.f.clock.now+s.turns[s.next].Gap, action{kind: arrive, client: s})
	} else if stage := &c.w.Stages[c.stage]; stage.Concurrency > 0 && c.next < len(stage.Sessions) {
		c.begin(&stage.Sessions[c.next], 0)
		c.next++
	}
	if len(c.waiting) > 0 {
		first := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.arrive(first)
	}
	if c.left == 0 {
		c.advance()
	}
}
