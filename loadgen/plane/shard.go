package plane

import (
	"context"
	"fmt"
)

// Shard is one index shard at its share of a fleet of 10,000 engines: four of the 64 buckets.
type Shard struct {
	Ops     float64 `json:"ops_per_s"`
	LagP99  float64 `json:"lag_p99_ms"` // from the time when a batch was due to be written
	Entries int     `json:"entries"`
	engines int
	asked   float64
	cores   float64 // of the index
}

const (
	fleetEngines = 10_000
	fleetShards  = 16
)

// followed is a shard whose log is written directly: it catches up, then follows all its engines' churn.
func followed(ctx context.Context, l *lab, o Options) (*Shard, error) {
	var w written
	p, err := l.spawn(ctx, "writer", writerConfig{NATS: l.url, Engines: o.Fleet, Shards: fleetShards,
		Blocks: max(512, o.Resident*fleetShards/o.Fleet)}, &w)
	if err != nil {
		return nil, err
	}
	s := shard{lab: l, writer: p, engines: w.Engines}
	if s.index, s.address, err = l.index(ctx, fleetShards, 0); err != nil {
		return nil, err
	}
	r := &Shard{engines: w.Engines, asked: o.ShardRate * float64(w.Engines), Entries: w.Entries}
	var done played
	if err := p.Ask("play", engineCall{Rate: r.asked, Seconds: min(1, o.Seconds/10)}, &done); err != nil {
		return nil, err
	}
	if err := s.reached(ctx, done.Last); err != nil {
		return nil, err
	}
	if err := s.index.Ask("mark", nil, nil); err != nil {
		return nil, err
	}
	before, err := s.index.CPU()
	if err != nil {
		return nil, err
	}
	if err := p.Ask("play", engineCall{Rate: r.asked, Seconds: o.Seconds / 3}, &done); err != nil {
		return nil, err
	}
	after, err := s.index.CPU()
	if err != nil {
		return nil, err
	}
	r.cores = (after - before) / done.Seconds
	if err := s.digests(o.wrongDigests); err != nil {
		return nil, err
	}
	if err := s.verify(ctx); err != nil {
		return nil, err
	}
	var q quantiles
	if err := s.index.Ask("lags", nil, &q); err != nil {
		return nil, err
	}
	if q.Ops != done.Ops {
		return nil, fmt.Errorf("%w: %d operations were written and %d applied", errNotEqual, done.Ops, q.Ops)
	}
	r.Ops, r.LagP99 = float64(done.Ops)/done.Seconds, q.Received.P99
	return r, nil
}

func (r *Shard) rows(t *table) {
	t.note("shard of 10,000 engines: its engines, entries", "%d, %d", r.engines, r.Entries)
	t.note("  block operations a second, asked", "%.0f, %.0f", r.Ops, r.asked)
	t.note("  cores: index", "%.2f", r.cores)
	t.most("  due -> visible, p99", r.LagP99, 100, "ms")
}
