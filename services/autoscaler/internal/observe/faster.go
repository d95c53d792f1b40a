package observe

import (
	"math"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// epoch is where a faster clock and ours agree. It is fixed, so that states survive restarts.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Clock translates to the time of engines that run faster than real time, as simulated ones may. The zero Clock is ours.
type Clock struct{ Speed float64 }

// Time is what a faster clock shows at t; zero is never in both.
func (c Clock) Time(t time.Time) time.Time {
	if c.Speed == 0 || t.IsZero() {
		return t
	}
	whole, part := math.Modf(t.Sub(epoch).Seconds() * c.Speed) // a Duration ends after 292 years
	return time.Unix(epoch.Unix()+int64(whole), int64(part*1e9)).UTC()
}

// Duration is how much time passes there while d does here.
func (c Clock) Duration(d time.Duration) time.Duration {
	if c.Speed == 0 {
		return d
	}
	return time.Duration(float64(d) * c.Speed)
}

// Observation is o as who lives by that clock would see it. It changes o's slices in place.
func (c Clock) Observation(o decide.Observation) decide.Observation {
	if c.Speed == 0 {
		return o
	}
	o.Routers.Heard = c.Time(o.Routers.Heard)
	for i := range o.Routers.Ended {
		r := &o.Routers.Ended[i]
		for _, d := range [...]*time.Duration{&r.Waited, &r.Prefill, &r.TTFT, &r.ITL} {
			*d = c.Duration(*d)
		}
	}
	for i := range o.Engines {
		e := &o.Engines[i]
		e.Gaps *= c.Speed
		e.Scrape.At = c.Time(e.Scrape.At)
	}
	replicas := make(map[decide.Role]decide.Replicas, len(o.Replicas))
	for role, r := range o.Replicas {
		r.Read = c.Time(r.Read)
		starting, starts := make([]decide.Starting, len(r.Starting)), make([]time.Duration, len(r.Starts))
		for i, s := range r.Starting {
			starting[i] = decide.Starting{Created: c.Time(s.Created), Stuck: s.Stuck}
		}
		for i, d := range r.Starts {
			starts[i] = c.Duration(d)
		}
		r.Starting, r.Starts = starting, starts
		replicas[role] = r
	}
	o.Replicas = replicas
	return o
}
