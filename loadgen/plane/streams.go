package plane

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Streams is how many block operations a second the plane takes from the event streams of 1,000 engines: streams that
// were recorded a moment before, each replayed through a ZeroMQ publisher of its own.
type Streams struct {
	Max     float64 `json:"max_ops_per_s"`
	LagP99  float64 `json:"lag_p99_ms"`
	engines int
	tries   []try
	replays float64 // that ingest asked for
	silent  float64 // of them without an answer
}

// try is one rate and what came of it.
type try struct {
	asked, ops, batches float64 // a second
	median              float64 // lag, p50 in milliseconds
	received, published float64 // the same, p99
	cores               Cores
	sustained           bool
}

const (
	streamBlocks  = 1024 // of an engine
	streamRunning = 8
	streamLag     = 100 // milliseconds that p99 stays below
)

// streams doubles the rate until it is not sustained, then halves the interval three times, by ratio.
func streams(ctx context.Context, l *lab, o Options) (*Streams, error) {
	p, err := l.newPlane(ctx, enginesConfig{Count: o.Streams, Blocks: streamBlocks, Running: min(streamRunning, o.Running), Seed: 3, Kept: 2000})
	if err != nil {
		return nil, err
	}
	r := &Streams{engines: o.Streams}
	most := 0.0
	for rate := o.Rate / 4; most == 0 || rate < most; rate *= 2 {
		t, err := p.try(ctx, rate, o)
		if err != nil {
			return nil, err
		}
		if r.note(t); !t.sustained {
			most = rate
		}
	}
	for range 3 {
		least := max(r.Max, most/16)
		t, err := p.try(ctx, math.Sqrt(least*most), o)
		if err != nil {
			return nil, err
		}
		if r.note(t); !t.sustained {
			most = t.asked
		}
	}
	var sums map[string]float64
	if err := p.ingest.Ask("metrics", nil, &sums); err != nil {
		return nil, err
	}
	const replays = "warmpath_ingest_replays_total"
	r.replays, r.silent = sums[replays], sums[replays+"{silent}"]
	v, err := p.verify(2)
	if err != nil {
		return nil, err
	}
	if !v.Equal {
		return nil, fmt.Errorf("%w: %s", errNotEqual, v.Why)
	}
	return r, nil
}

func (r *Streams) note(t try) {
	if r.tries = append(r.tries, t); t.sustained && t.ops > r.Max {
		r.Max, r.LagP99 = t.ops, t.received
	}
}

// try records what is needed, replays it at a rate, and then the rest slowly, until the index has all.
func (p *plane) try(ctx context.Context, rate float64, o Options) (t try, err error) {
	seconds := o.Seconds / 10
	t.asked = rate
	if err := p.engines.Ask("record", engineCall{Ops: int(1.1 * rate * seconds)}, nil); err != nil {
		return t, err
	}
	if err := p.index.Ask("mark", nil, nil); err != nil {
		return t, err
	}
	done, cores, err := p.watched(rate, seconds)
	if err != nil {
		return t, err
	}
	t.cores = cores
	t.ops, t.batches = float64(done.Ops)/done.Seconds, float64(done.Batches)/done.Seconds
	if err := p.drained(ctx, done.Ops); err != nil {
		return t, err
	}
	var q quantiles
	if err := p.index.Ask("lags", nil, &q); err != nil {
		return t, err
	}
	t.median, t.received, t.published = q.Received.P50, q.Received.P99, q.Published.P99
	t.sustained = t.ops >= .95*rate && t.received < streamLag && t.published < streamLag
	return t, p.rest(ctx, done, o.Rate/4)
}

// rest replays slowly what a rate that is not sustained has left.
func (p *plane) rest(ctx context.Context, done played, rate float64) error {
	ops := done.Ops
	for done.Left > 0 {
		var err error
		if done, err = p.play(rate, 1); err != nil {
			return err
		}
		ops += done.Ops
	}
	return p.drained(ctx, ops)
}

// steady is for how long an index must apply nothing more to count as drained: where ingest had to publish a snapshot
// in place of deltas, fewer operations come than were published.
const steady = time.Second

// drained waits until ingest has folded all that was published, and the index has applied so many operations since the
// last mark.
func (p *plane) drained(ctx context.Context, ops int) error {
	var sent total
	if err := p.engines.Ask("sent", engineCall{}, &sent); err != nil {
		return err
	}
	if err := until(ctx, patience, func() error {
		folded, err := counted(p.ingest, "warmpath_ingest_blocks_total")
		if err == nil && int(folded) < sent.Ops {
			err = fmt.Errorf("%d operations published, %.0f folded", sent.Ops, folded)
		}
		return err
	}); err != nil {
		return err
	}
	before, since := 0, time.Now()
	return until(ctx, patience, func() error {
		var applied int
		if err := p.index.Ask("applied", nil, &applied); err != nil {
			return err
		}
		if applied != before {
			before, since = applied, time.Now()
		}
		if applied < ops && time.Since(since) < steady {
			return fmt.Errorf("%d of %d operations applied", applied, ops)
		}
		return nil
	})
}

func (r *Streams) rows(t *table) {
	t.note("event streams of 1,000 engines: streams", "%d", r.engines)
	if t.note("  sustained block operations a second", "%.0f", r.Max); r.Max > 0 {
		t.most("  received -> visible at that rate, p99", r.LagP99, streamLag, "ms")
	}
	t.note("  replays that ingest asked for, and those without an answer", "%.0f, %.0f", r.replays, r.silent)
	for _, s := range r.tries {
		t.row("  tried", fmt.Sprintf("%.0f ops/s in %.0f batches/s: p50 %.1f, p99 %.0f ms, from publishing %.0f ms",
			s.ops, s.batches, s.median, s.received, s.published),
			"", s.cores.String())
	}
}
