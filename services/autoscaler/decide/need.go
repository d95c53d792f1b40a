package decide

import (
	"math"
	"strconv"
)

func count(n int) string { return strconv.Itoa(n) }

// need says how many replicas a role needs by each rule; the greatest binds.
func (c *core) need(x *choice, startup float64) {
	m := c.headroom(x.i)
	t := x.track
	held := max(t.Peaks.over(holdSeconds(startup)), t.Need)
	eps := unheldEps
	if c.p.FCFS {
		eps = fcfsEps
	}
	d, w := &c.l.decodes, &c.l.waits
	decode := func(busy float64) int { return d.replicas(m*busy, c.l.fit, c.l.burst) }
	prefill := func(busy float64) int { return w.least(m*busy, eps) }
	switch x.role {
	case Prefill:
		x.candidate("arrivals", prefill(t.Need))
		x.unheld = x.out.Need
		x.candidate("held", prefill(held))
		if more := c.s.Trust.growth(); x.out.Need > x.run.now && more > 1.01 {
			x.candidate("fewer hits", prefill(more*t.Need))
		}
		if c.p.FCFS {
			x.candidate("backlog", c.backlog(x, startup))
		}
	case Decode:
		x.candidate("occupancy", decode(min(c.l.observed, c.l.work)))
		x.candidate("flow", decode(c.l.flow))
		x.candidate("forecast", decode(t.Need))
		x.unheld = x.out.Need
		x.candidate("held", decode(held))
	case Both:
		first := &c.s.Tracks[0]
		x.candidate("wait", prefill(max(first.Peaks.over(holdSeconds(startup)), first.Need)))
		x.candidate("forecast", decode(t.Need))
		x.unheld = x.out.Need
		x.candidate("held", decode(held))
	}
	if n := t.prove(held, &x.run, c.s.Trust.misses(x.role), c.l.doubts[x.i], c.now); n > 0 {
		x.candidate("proven", n)
	}
	x.out.Demand = Demand{
		Arrivals: max(c.s.Arrivals.Level, 0), Tokens: c.l.rates.uncached, Busy: max(c.s.Work.Level, 0), Observed: c.l.observed,
		Flow: c.l.flow, Forecast: t.Need, Held: held, Burst: c.l.burst, Infeasible: w.infeasible,
	}
	if x.role == Decode {
		x.out.Demand.Tokens = c.l.rates.output
	}
}

func (x *choice) candidate(rule string, n int) {
	x.out.Candidates = append(x.out.Candidates, Candidate{rule, n})
	if n > x.out.Need {
		x.out.Need, x.out.Rule = n, rule
	}
}

// headroom is the operator's, or more while little of the model is learned.
func (c *core) headroom(i int) float64 {
	m := c.p.Headroom
	if sure := c.l.doubts[i]; sure < doubtful {
		m += max(strict-m, 0) * (1 - sure/doubtful)
	}
	return m
}

// backlog is the prefill that will be left when a replica ordered now is there, with those that start counted from
// when they will be ready; it is to be worked off in 90 s (autoscaler, section 7.5).
func (c *core) backlog(x *choice, startup float64) int {
	tokens := 0.
	for i := range c.o.Engines {
		if e := &c.o.Engines[i]; e.Role == x.role && e.Backlog > 0 {
			tokens += float64(e.Backlog)
		}
	}
	if c.l.occupied.waiting == 0 {
		tokens += float64(c.o.Routers.Tokens)
	}
	horizon := startup + tick
	work := x.track.Need
	left := tokens/c.l.model.Rate + (work-float64(x.run.ready))*horizon
	for i := range x.run.starting {
		if s := &x.run.starting[i]; s.Stuck == "" {
			left -= max(min(horizon-(startup-c.now.Sub(s.Created).Seconds()), horizon), 0)
		}
	}
	if left <= .3*c.p.TTFT.Seconds()*float64(x.run.ready) {
		return 0
	}
	return int(min(math.Ceil(work+left/90), most))
}

// explain adds what the target would lead to, and what became of the forecast one start-up time ago.
func (c *core) explain(x *choice) {
	if !c.l.known {
		return
	}
	out := &x.out
	out.Predicted = make([]Prediction, 0, 3)
	for n := max(out.Target-1, 0); n <= out.Target+1; n++ {
		out.Predicted = append(out.Predicted, Prediction{n, c.violations(x, n)})
	}
	ago := out.Model.Startup + 10
	if forecast, ok := x.track.Forecasts.ago(ago); ok && c.l.taken {
		came := [3]float64{max(c.s.Work.Level, 0), c.s.Occupied.Level, c.s.Occupied.Level + c.l.blend}[x.i]
		at := c.now.Add(-seconds(ago))
		out.Realised = &Realised{At: at, Forecast: forecast, Came: came}
	}
}

// violations predicts the share of requests that miss the role's objective with n replicas, at what is foreseen now.
func (c *core) violations(x *choice, n int) float64 {
	busy := x.track.Need
	switch x.role {
	case Prefill:
		return c.l.waits.violations(n, busy)
	case Decode:
		return c.l.decodes.violations(n, busy, c.l.fit, c.l.burst)
	default:
		late := c.l.waits.violations(n, c.s.Tracks[0].Need)
		return 1 - (1-late)*(1-c.l.decodes.violations(n, busy, c.l.fit, c.l.burst))
	}
}
