package router

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/services/router/internal/door"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const reportEvery = time.Second

// totals count a pool's requests since this router started; queued is a gauge. The pool's own lock guards them.
type totals struct {
	arrivals int64 // requests for this pool
	finished int64 // of these, ended in whatever way
	prompt   int64 // prompt tokens at dispatch
	uncached int64 // of these, not cached at dispatch
	output   int64
	queued   int64 // requests that wait for an engine, or for room on one, now
	shed     int64 // of those that waited, refused
	inflight int64
}

// pool is one pool: its ledger, and what the reports count beside it.
type pool struct {
	*ledger.Pool

	id    string
	door  door.Door
	wrong predictionErrors
	reads readings
	mu    sync.Mutex // of total; the ledger has its own
	total totals
}

// Waits is for the pool's door.
func (p *pool) Waits() { p.count(func(t *totals) { t.queued++ }) }

// Waited is for the pool's door.
func (p *pool) Waited(shed bool) {
	p.count(func(t *totals) {
		if t.queued--; shed {
			t.shed++
		}
	})
}

// report is what a router says each second of one pool: counters since its start, and gauges.
type report struct {
	Router         string                `json:"router"`
	Started        int64                 `json:"started"` // unix seconds; another value is another life of the counters
	Pool           string                `json:"pool"`
	Arrivals       int64                 `json:"arrivals"`
	PromptTokens   int64                 `json:"prompt_tokens"`
	UncachedTokens int64                 `json:"uncached_tokens"`
	OutputTokens   int64                 `json:"output_tokens"`
	Queued         int64                 `json:"queued"`
	QueuedTokens   int64                 `json:"queued_tokens"` // of those, prompt to compute and output, as foreseen
	Shed           int64                 `json:"shed"`          // requests that waited and were refused
	Inflight       int64                 `json:"inflight"`
	Finished       int64                 `json:"finished"`
	Engines        map[string]engineLoad `json:"engines"`
}

type engineLoad struct {
	Inflight       int `json:"inflight"`
	UncachedTokens int `json:"uncached_tokens"`
}

// report reads a pool's counters.
func (p *pool) report(router string, started time.Time) report {
	p.mu.Lock()
	t := p.total
	p.mu.Unlock()
	loads := p.Loads()
	r := report{
		Router: router, Started: started.Unix(), Pool: p.id,
		Arrivals: t.arrivals, PromptTokens: t.prompt, UncachedTokens: t.uncached, OutputTokens: t.output,
		Queued: t.queued, QueuedTokens: int64(p.door.Waiting().Tokens), Shed: t.shed, Inflight: t.inflight, Finished: t.finished, Engines: make(map[string]engineLoad, len(loads)),
	}
	for id, l := range loads {
		r.Engines[id] = engineLoad{l.Active, l.Uncached}
	}
	return r
}

// count changes a pool's totals.
func (p *pool) count(change func(*totals)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.total)
}

// reports sends a report of every pool each second until ctx ends, also of pools without traffic: silence would not
// be a sign of idleness.
func (rt *router) reports(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			rt.sendReports()
		}
	}
}

func (rt *router) sendReports() {
	view := rt.fleet.View()
	size := 0
	for id := range view.Pools {
		p := rt.pool(id)
		p.Sweep(view, time.Now())
		size += p.Size().Keys
		r := p.report(rt.instance, rt.started)
		rt.metrics.observe(&r)
		rt.metrics.prediction.WithLabelValues(id).Set(p.wrong.median())
		data, err := json.Marshal(r)
		if err == nil {
			err = rt.bus.Send(bus.ReportSubject(id, rt.instance), data)
		}
		if err != nil {
			rt.metrics.dropped.WithLabelValues("report").Inc()
		}
	}
	rt.metrics.placements.Set(float64(size))
}
