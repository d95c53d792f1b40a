package plane

import (
	"context"
	"fmt"
	"time"
)

// Streams is how many block operations a second the plane takes from the event streams of 1,000 engines: streams that
// were recorded a moment before, each replayed through a ZeroMQ publisher of its own.
type Streams struct {
	Max     float64 `json:"max_ops_per_s"`
	LagP99  float64 `json:"lag_p99_ms"`
	engines int
	tries   []try
}

// try is one rate and what came of it.
type try struct {
	asked, ops, batches float64 // a second
	received, published float64 // lag, p99 in milliseconds
	ingest, nats, index float64 // cores
	sustained           bool
}

const (
	streamBlocks  = 2048 // of an engine
	streamRunning = 16
	streamLag     = 100 // milliseconds that p99 stays below
)

// streams doubles the rate until it is not sustained, then halves the interval three times.
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
		t, err := p.try(ctx, (least+most)/2, o)
		if err != nil {
			return nil, err
		}
		if r.note(t); !t.sustained {
			most = t.asked
		}
	}
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
	if err := p.engines.ask("record", engineCall{Ops: int(1.1 * rate * seconds)}, nil); err != nil {
		return t, err
	}
	if err := p.index.ask("mark", nil, nil); err != nil {
		return t, err
	}
	of := []struct {
		p     *process
		cores *float64
	}{{p.ingest, &t.ingest}, {p.nats, &t.nats}, {p.index, &t.index}}
	for _, c := range of {
		used, err := c.p.cpu()
		if err != nil {
			return t, err
		}
		*c.cores = -used
	}
	done, err := p.play(rate, seconds)
	if err != nil {
		return t, err
	}
	for _, c := range of {
		used, err := c.p.cpu()
		if err != nil {
			return t, err
		}
		*c.cores = (*c.cores + used) / done.Seconds
	}
	t.ops, t.batches = float64(done.Ops)/done.Seconds, float64(done.Batches)/done.Seconds
	q, err := p.drained(ctx)
	if err != nil {
		return t, err
	}
	t.received, t.published = q.Received.P99, q.Published.P99
	t.sustained = t.ops >= .95*rate && t.received < streamLag && t.published < streamLag
	for done.Left > 0 {
		if done, err = p.play(o.Rate/4, 1); err != nil {
			return t, err
		}
	}
	_, err = p.drained(ctx)
	return t, err
}

// drained waits until ingest has folded all that was published, and the index applies no more.
func (p *plane) drained(ctx context.Context) (q quantiles, err error) {
	var sent total
	if err := p.engines.ask("sent", engineCall{}, &sent); err != nil {
		return q, err
	}
	if err := until(ctx, patience, func() error {
		folded, err := counted(p.ingest, "warmpath_ingest_blocks_total")
		if err == nil && int(folded) < sent.Ops {
			err = fmt.Errorf("%d operations published, %.0f folded", sent.Ops, folded)
		}
		return err
	}); err != nil {
		return q, err
	}
	for before := -1; before != q.Ops; {
		before = q.Ops
		time.Sleep(300 * time.Millisecond)
		if err := p.index.ask("lags", nil, &q); err != nil {
			return q, err
		}
	}
	return q, nil
}

func (r *Streams) rows(t *table) {
	t.note("event streams of 1,000 engines: streams", "%d", r.engines)
	t.note("  sustained block operations a second", "%.0f", r.Max)
	t.most("  received -> visible at that rate, p99", r.LagP99, streamLag, "ms")
	for _, s := range r.tries {
		t.row("  tried", fmt.Sprintf("%.0f ops/s in %.0f batches/s: p99 %.0f ms, from publishing %.0f ms", s.ops, s.batches, s.received, s.published),
			"", fmt.Sprintf("cores: ingest %.2f, nats %.2f, index %.2f", s.ingest, s.nats, s.index))
	}
}
