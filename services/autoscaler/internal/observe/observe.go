// Package observe gathers what is known of each pool, and when it was heard: what the routers report, what they recorded
// of requests, what the engines say of themselves, and what the fleet knows of both. It decides nothing, and what it has
// not heard it does not take for zero.
package observe

import (
	"math"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/replica"
)

// Observer keeps what was heard of all pools. Its methods may be called from any goroutine.
type Observer struct {
	Scrapes *Scraper

	mu    sync.Mutex
	pools map[string]*pool
}

type pool struct {
	routers routers
	records records
}

// Outcome is what became of a report or a record.
type Outcome string

// The outcomes.
const (
	Taken     Outcome = "taken"
	Malformed Outcome = "malformed" // or of a pool that the fleet does not know
	TooMany   Outcome = "too_many"  // routers
)

// Report takes in what a router sent.
func (o *Observer) Report(v *fleet.View, data []byte, now time.Time) (Outcome, error) {
	r, err := ParseReport(data)
	if err != nil {
		return Malformed, err
	}
	if _, known := v.Pools[r.Pool]; !known {
		return Malformed, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.pool(r.Pool).routers.fold(r, func(id string) bool { return v.Engines[id].Pool == r.Pool }, now) {
		return TooMany, nil
	}
	return Taken, nil
}

// Record takes in a request record of a pool.
func (o *Observer) Record(v *fleet.View, id string, data []byte) (Outcome, error) {
	if _, known := v.Pools[id]; !known {
		return Malformed, nil
	}
	o.mu.Lock()
	p := o.pool(id)
	o.mu.Unlock()
	if err := p.records.add(data); err != nil {
		return Malformed, err
	}
	return Taken, nil
}

// pool finds or makes what is known of a pool. The lock is held.
func (o *Observer) pool(id string) *pool {
	p := o.pools[id]
	if p == nil {
		if o.pools == nil {
			o.pools = make(map[string]*pool)
		}
		p = &pool{}
		o.pools[id] = p
	}
	return p
}

// Restart drops all that was heard: the totals begin at zero.
func (o *Observer) Restart() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pools = nil
}

// Forget drops the pools that v does not have.
func (o *Observer) Forget(v *fleet.View) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.pools {
		if _, known := v.Pools[id]; !known {
			delete(o.pools, id)
		}
	}
}

// left is how many requests a draining engine has by its own word, which must be of after it was marked: a router that is
// cut off from us, or a client that passes routers by, may still use it. Without that word it is not without requests.
func left(s *decide.Scrape, marked, now time.Time) int {
	if s.At.IsZero() || s.At.Before(marked) && !marked.After(now) { // marks from the future are of a clock that was wrong
		return 1
	}
	return int(math.Ceil(min(s.Running+s.Waiting, 1e6)))
}

// Observe is what is known of a pool now, but for its replicas: whoever starts engines knows those. What it says of
// requests that ended it says once. Engines that are to go are no engines any more.
func (o *Observer) Observe(v *fleet.View, id string, now time.Time) decide.Observation {
	var alive []string
	for _, m := range v.Members {
		if m.Service == "router" {
			alive = append(alive, m.Instance)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.pool(id)
	p.routers.see(alive, now)
	p.routers.forget(func(engine string) bool { return v.Engines[engine].Pool == id })
	seen := decide.Observation{Routers: p.routers.observe(alive, now)}
	seen.Routers.Ended = p.records.take()
	for _, r := range replica.List(v, id) {
		if r.Mark == replica.Leaving {
			continue
		}
		e := decide.Engine{
			ID: r.ID, Role: r.Role, Serving: true, Draining: r.Mark != replica.None, Operator: r.Mark == replica.Foreign,
			Scrape: o.Scrapes.last(r.URL),
		}
		for _, rank := range r.Ranks {
			p.routers.engine(&e, rank, alive)
		}
		if e.Draining {
			e.Inflight = max(e.Inflight, left(&e.Scrape, r.Since, now))
		}
		seen.Engines = append(seen.Engines, e)
	}
	return seen
}
