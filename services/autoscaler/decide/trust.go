package decide

import (
	"math"
	"time"
)

const (
	disagree   = .2 // between routers and engines about what runs is too much,
	disagreeBy = 8  // if it is so many requests,
	suspectFor = time.Minute
	missesMost = .05 // share of requests that miss a role's objective, above which none is taken away
	costliest  = .25 // greatest growth of the work that fewer hits in other caches are taken to bring
)

// trust is what speaks for and against taking replicas away, beside demand.
type trust struct {
	SuspectAt time.Time  `json:"suspectAt"` // since when routers and engines disagree; zero is not
	Misses    [2]float64 `json:"misses"`    // share of TTFT and ITL objectives missed by requests that could meet them
	Hits      level      `json:"hits"`      // prefix cache hits, of prompt tokens
	Ready     int        `json:"ready"`     // prefill replicas at the last tick
	ResizeAt  time.Time  `json:"resizeAt"`
	Before    float64    `json:"before"` // hits before that
	Loss      float64    `json:"loss"`   // that another prefill replica brings, learned
}

// judge folds a tick in.
func (t *trust) judge(o *Observation, l *load, p *Policy, now time.Time) {
	routers, engines := 0., 0.
	for i := range o.Engines {
		if e := &o.Engines[i]; e.Role != Prefill && e.Serving && e.Scrape.fresh(now) {
			routers += min(max(float64(e.Inflight), 0), 1e6)
			engines += min(e.Scrape.Running+e.Scrape.Waiting, 1e6)
		}
	}
	off := math.Abs(routers - engines)
	switch {
	case off <= disagreeBy || off <= disagree*max(routers, engines):
		t.SuspectAt = time.Time{}
	case t.SuspectAt.IsZero() || t.SuspectAt.After(now):
		t.SuspectAt = now
	}
	for i := range o.Routers.Ended {
		t.missed(&o.Routers.Ended[i], l, p)
	}
	t.resized(o, l, now)
}

// suspect says that routers and engines have told different things for long.
func (t *trust) suspect(now time.Time) bool {
	return !t.SuspectAt.IsZero() && now.Sub(t.SuspectAt) >= suspectFor
}

// missed counts a request among the latest hundred.
func (t *trust) missed(r *Request, l *load, p *Policy) {
	if r.Failed || r.Uncached < 0 {
		return
	}
	count := func(share *float64, miss bool) {
		*share *= .99
		if miss {
			*share += .01
		}
	}
	if r.TTFT > 0 && l.line.seconds(float64(r.Uncached)/1000) <= l.waits.budget {
		count(&t.Misses[0], r.TTFT > p.TTFT)
	}
	if r.ITL > 0 {
		count(&t.Misses[1], r.ITL > p.ITL)
	}
}

// misses is the share that misses a role's objective.
func (t *trust) misses(role Role) float64 {
	switch role {
	case Prefill:
		return t.Misses[0]
	case Decode:
		return t.Misses[1]
	default:
		return max(t.Misses[0], t.Misses[1])
	}
}

// resized learns how many hits are lost where prompts spread over more prefill replicas: what there were before against
// what there are two minutes after.
func (t *trust) resized(o *Observation, l *load, now time.Time) {
	if l.taken && l.rates.prompt > 0 {
		hits := min(max(1-l.rates.uncached/l.rates.prompt, 0), 1)
		t.Hits = t.Hits.next(hits, min(l.rates.seconds/tick, 4)/4, false) // of the last minute or so
	}
	ready := o.Replicas[Prefill].Ready
	if !t.ResizeAt.IsZero() && now.Sub(t.ResizeAt) >= 2*time.Minute {
		t.Loss += .2 * (min(max(t.Before-t.Hits.Level, 0), costliest) - t.Loss)
		t.ResizeAt = time.Time{}
	}
	if ready > t.Ready && t.Ready > 0 && t.ResizeAt.IsZero() {
		t.ResizeAt, t.Before = now, t.Hits.Level
	}
	t.Ready = ready
}

// growth is by how much the work grows with more prefill replicas.
func (t *trust) growth() float64 {
	return 1 + min(t.Loss/max(1-t.Hits.Level, .1), costliest)
}
