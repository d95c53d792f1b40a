package top

import (
	"encoding/json"
	"fmt"
	"time"
)

const (
	staleAfter = 3 * time.Second  // a router reports each second
	rateSpan   = 10 * time.Second // that rates are taken over
	settleSpan = 2500 * time.Millisecond
	maxRouters = 1024 // of a pool
)

// report is what is read of what a router says each second of one pool: counters since it started, and gauges.
type report struct {
	Router  string                `json:"router"`
	Started int64                 `json:"started"` // Unix seconds; another value is another life of the counters
	Seq     uint64                `json:"seq"`     // of the report in this life; 0 of a router that does not count them
	Pool    string                `json:"pool"`
	Engines map[string]engineLoad `json:"engines"`
	counters

	Queued   uint32  `json:"queued"`
	Held     *uint32 `json:"held"`
	Inflight uint32  `json:"inflight"`
}

type counters struct {
	Arrivals uint64 `json:"arrivals"`
	Prompt   uint64 `json:"prompt_tokens"`
	Uncached uint64 `json:"uncached_tokens"`
	Output   uint64 `json:"output_tokens"`
	Shed     uint64 `json:"shed"`
}

// engineLoad is what a router has under way on one engine. What an older router does not say is nil.
type engineLoad struct {
	Inflight uint32  `json:"inflight"`
	Backlog  uint32  `json:"uncached_tokens"`
	Decoding *uint32 `json:"decoding"`
	Context  *uint32 `json:"context_tokens"`
}

// load is what it says of an engine. A router says nothing of engines that it has nothing on.
func (r *report) load(engine string) engineLoad {
	l, ok := r.Engines[engine]
	if nothing := uint32(0); !ok && r.Seq > 0 {
		l.Decoding, l.Context = &nothing, &nothing
	}
	return l
}

func parse(data []byte) (report, error) {
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read a router's report: %w", err)
	}
	if r.Router == "" || r.Pool == "" {
		return r, fmt.Errorf("read a router's report: router %q, pool %q", r.Router, r.Pool)
	}
	return r, nil
}

// router is what one router said of one pool. Its totals only grow, through restarts.
type router struct {
	last   report
	heard  time.Duration // by the clock that stands still while NATS is away
	totals counters
	points []point // of the last rateSpan, oldest first
}

type point struct {
	at     time.Time
	totals counters
}

// fold takes a report in. A restarted router counts from zero; a late word of an earlier life says nothing; counters
// that fall without a restart count for nothing.
func (r *router) fold(n report, now time.Time, clock time.Duration) {
	first := r.points == nil
	before := r.last.counters
	switch {
	case first:
		before = n.counters
	case n.Started < r.last.Started:
		return
	case n.Started > r.last.Started, n.Seq < r.last.Seq: // in the same second
		before = counters{}
	case n.Arrivals < before.Arrivals, n.Prompt < before.Prompt, n.Uncached < before.Uncached, n.Output < before.Output, n.Shed < before.Shed:
		before = n.counters
	}
	r.totals.add(n.counters, before)
	r.last, r.heard = n, clock
	for len(r.points) > 0 && now.Sub(r.points[0].at) > rateSpan {
		r.points = r.points[1:]
	}
	r.points = append(r.points, point{now, r.totals})
}

// add adds what was counted from one reading to another.
func (c *counters) add(to, from counters) {
	c.Arrivals += to.Arrivals - from.Arrivals
	c.Prompt += to.Prompt - from.Prompt
	c.Uncached += to.Uncached - from.Uncached
	c.Output += to.Output - from.Output
	c.Shed += to.Shed - from.Shed
}

// rates says how fast its counters grew lately; false until it was heard twice.
func (r *router) rates() (Rates, bool) {
	if len(r.points) < 2 {
		return Rates{}, false
	}
	from, to := r.points[0], r.points[len(r.points)-1]
	s := to.at.Sub(from.at).Seconds()
	if s <= 0 {
		return Rates{}, false
	}
	var d counters
	d.add(to.totals, from.totals)
	return Rates{
		Arrivals: float64(d.Arrivals) / s, Prompt: float64(d.Prompt) / s, Uncached: float64(d.Uncached) / s,
		Output: float64(d.Output) / s, Shed: float64(d.Shed) / s,
	}, true
}

func (r *router) settled() bool {
	return len(r.points) > 0 && r.points[len(r.points)-1].at.Sub(r.points[0].at) >= settleSpan
}
