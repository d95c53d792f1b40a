package router

import (
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
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
	compute  int64 // prompt tokens that these are thought to have computed
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
	mu    sync.Mutex // of total and seq; the ledger has its own
	total totals
	seq   uint64 // of the last report
}

// Waits is for the pool's door.
func (p *pool) Waits(v *door.Visit) {
	p.count(func(t *totals) {
		t.queued++
		t.compute += int64(v.Guess.Uncached)
	})
}

// Waited is for the pool's door.
func (p *pool) Waited(v *door.Visit, shed bool) {
	p.count(func(t *totals) {
		t.compute -= int64(v.Guess.Uncached)
		if t.queued--; shed {
			t.shed++
		}
	})
}

// report is what a router says each second of one pool: counters since its start, and gauges.
type report struct {
	Router         string                `json:"router"`
	Started        int64                 `json:"started"` // unix seconds; another value is another life of the counters
	Seq            uint64                `json:"seq"`     // counts the pool's reports of this life from 1
	Pool           string                `json:"pool"`
	Arrivals       int64                 `json:"arrivals"`
	PromptTokens   int64                 `json:"prompt_tokens"`
	UncachedTokens int64                 `json:"uncached_tokens"`
	OutputTokens   int64                 `json:"output_tokens"`
	Queued         int64                 `json:"queued"`
	Held           int64                 `json:"held"`            // of those, because no engine takes requests at all
	QueuedTokens   int64                 `json:"queued_tokens"`   // of those, prompt to compute and output, as foreseen
	QueuedUncached int64                 `json:"queued_uncached"` // of these, prompt to compute
	Shed           int64                 `json:"shed"`            // requests that waited and were refused
	Inflight       int64                 `json:"inflight"`
	Finished       int64                 `json:"finished"`
	Engines        map[string]engineLoad `json:"engines"`
}

// engineLoad is what the router has under way on an engine, and the pace of its streams.
type engineLoad struct {
	Inflight       int     `json:"inflight"` // with prompts that decode engines have not fetched yet
	UncachedTokens int     `json:"uncached_tokens"`
	Decoding       int     `json:"decoding"`           // sequences that have their first token
	ContextTokens  int     `json:"context_tokens"`     // of these
	Gaps           int64   `json:"gaps"`               // between their tokens, since this router met the engine
	GapSeconds     float64 `json:"gap_seconds"`        // sum of these
	Draining       bool    `json:"draining,omitempty"` // this router chooses it no more
}

// report reads a pool's counters, with the fleet as in v.
func (p *pool) report(v *fleet.View, router string, started, now time.Time) report {
	p.mu.Lock()
	p.seq++
	t, seq := p.total, p.seq
	p.mu.Unlock()
	all := p.Standings(now)
	r := report{
		Router: router, Started: started.Unix(), Seq: seq, Pool: p.id,
		Arrivals: t.arrivals, PromptTokens: t.prompt, UncachedTokens: t.uncached, OutputTokens: t.output,
		Queued: t.queued, QueuedTokens: int64(p.door.Waiting().Tokens), QueuedUncached: t.compute,
		Shed: t.shed, Inflight: t.inflight, Finished: t.finished, Engines: make(map[string]engineLoad, len(all)),
	}
	if !takesRequests(v, p.id) {
		r.Held = r.Queued
	}
	for id, s := range all {
		r.Engines[id] = engineLoad{
			Inflight: s.Active + s.Lent, UncachedTokens: s.Uncached, Decoding: s.Active - s.Waiting,
			ContextTokens: s.DecodeContext + s.Streamed, Gaps: s.Gaps, GapSeconds: s.GapTime.Seconds(), Draining: s.Draining,
		}
	}
	return r
}

// takesRequests says whether any engine of a pool does.
func takesRequests(v *fleet.View, pool string) bool {
	for id, e := range v.Engines {
		if e.Pool == pool && e.State != fleet.Gone && !v.Draining[id] {
			return true
		}
	}
	return false
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
	tick := time.NewTicker(cmp.Or(rt.cfg.Report, reportEvery))
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
		now := time.Now()
		p.Sweep(view, now)
		size += p.Size().Keys
		r := p.report(view, rt.instance, rt.started, now)
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
