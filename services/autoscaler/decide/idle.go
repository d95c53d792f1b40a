package decide

import "time"

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// idle keeps since when every router says that there is nothing to do. Silence is no such sign.
func (s *memory) idle(o *Observation, v *view, l *load, now time.Time) {
	busy := o.Routers.Queued > 0 || o.Routers.Held > 0 || l.rates.arrivals > 0
	for i := range o.Engines {
		e := &o.Engines[i]
		busy = busy || e.Inflight > 0 || e.Decoding > 0 || e.Backlog > 0
	}
	switch {
	case !v.idle || busy || !l.taken:
		s.IdleAt = time.Time{}
	case s.IdleAt.IsZero():
		s.IdleAt = now
	}
}

// asleep says whether a role shall have no replica: the pool may, and either has been idle for long or has none and
// nobody asks. All roles wake together, with the first request that is held.
func (c *core) asleep(x *choice) bool {
	if x.bounds.Min > 0 || c.p.IdleAfter <= 0 || !c.v.routers {
		return false
	}
	idle := !c.s.IdleAt.IsZero()
	if idle && c.now.Sub(c.s.IdleAt) >= c.p.IdleAfter {
		x.track.Peaks, x.track.Need = peaks{}, 0
		x.track.Peaks.Slot = int64(c.s.Seen / slot)
		return true
	}
	asked := c.o.Routers.Queued > 0 || c.o.Routers.Held > 0 || c.l.rates.arrivals > 0
	return x.run.now == 0 && !asked
}

// blind decides without the routers: nothing changes, but engines that queue by their own word get help, one step in
// a start-up time.
func (c *core) blind(x *choice, startup float64) {
	x.keep("blind", c.v.down)
	if c.v.ages.Routers < 0 || c.v.silent <= routersGone || !c.v.engines || x.run.coming > 0 || x.run.stuck > 0 || x.run.adopted ||
		!x.track.UpAt.IsZero() && c.now.Sub(x.track.UpAt).Seconds() < startup {
		return
	}
	waiting, full, n := 0., 0., 0.
	for i := range c.o.Engines {
		if e := &c.o.Engines[i]; e.Role == x.role && e.Serving && e.Scrape.fresh(c.now) {
			waiting, full, n = waiting+min(e.Scrape.Waiting, 1e6), full+min(e.Scrape.KVUsage, 1), n+1
		}
	}
	if n == 0 || waiting < queueing*n && full < .9*n {
		return
	}
	up := min(x.run.now+max(1, int(stepDown*float64(x.run.now))), x.bounds.Max)
	if up > x.run.now {
		x.out.Need, x.out.Target, x.out.Rule = up, up, "engines queue"
	}
}

// queueing is the requests that wait in an engine on average, from which on more engines help.
const queueing = 5
