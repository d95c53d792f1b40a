package plane

import (
	"context"
	"fmt"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/loadgen/process"
)

// Live is what 64 live engines, ingest, NATS and index cost, each in a process of its own.
type Live struct {
	Engines  int         `json:"engines"`
	Seconds  float64     `json:"seconds"`
	Ops      float64     `json:"block_ops_per_s"`
	Lag      percentiles `json:"lag_ms"`
	Cores    Cores       `json:"cores"`
	Bytes    BytesPerOp  `json:"bytes_per_op"`
	Lost     int         `json:"lost"` // operations published and not folded by ingest
	Equal    bool        `json:"index_equals_truth"`
	snapshot float64     // bytes of snapshots a block operation, in the window
	batches  float64     // a second
	messages float64     // of the log, a second
	added    float64     // bytes that the server's store adds to a message
}

// Cores are seconds of processor time a second.
type Cores struct {
	Ingest  float64 `json:"ingest"`
	NATS    float64 `json:"nats"`
	Index   float64 `json:"index"`
	Engines float64 `json:"engines"`
}

func (c Cores) String() string {
	return fmt.Sprintf("cores: ingest %.2f, nats %.2f, index %.2f; engines %.2f", c.Ingest, c.NATS, c.Index, c.Engines)
}

// BytesPerOp are bytes for each block stored or removed: in vLLM's payloads, and what the store of NATS grew by, for
// deltas alone and for all messages.
type BytesPerOp struct {
	VLLM   float64 `json:"vllm"`
	Deltas float64 `json:"deltas"`
	NATS   float64 `json:"nats"`
}

// live plays churn of full caches for o.Seconds, after two seconds that are not measured.
func live(ctx context.Context, l *lab, o Options) (*Live, error) {
	p, err := l.newPlane(ctx, enginesConfig{Count: o.Engines, Blocks: o.Blocks, Running: o.Running, Seed: 1})
	if err != nil {
		return nil, err
	}
	if _, err := p.play(o.Rate, min(2, o.Seconds)); err != nil {
		return nil, err
	}
	if err := p.settled(ctx); err != nil {
		return nil, err
	}
	r := &Live{Engines: o.Engines}
	before, err := l.conn.StreamState(ctx, bus.Events)
	if err != nil {
		return nil, err
	}
	if err := p.index.Ask("mark", nil, nil); err != nil {
		return nil, err
	}
	done, cores, err := p.watched(o.Rate, o.Seconds)
	if err != nil {
		return nil, err
	}
	if err := p.settled(ctx); err != nil {
		return nil, err
	}
	var q quantiles
	if err := p.index.Ask("lags", nil, &q); err != nil {
		return nil, err
	}
	r.Lag, r.Cores = q.Received, cores
	after, err := l.conn.StreamState(ctx, bus.Events)
	if err != nil {
		return nil, err
	}
	s, err := readStored(ctx, l.conn, before.Last, after.Last)
	if err != nil {
		return nil, fmt.Errorf("read what was stored: %w", err)
	}
	ops, bytes := float64(done.Ops), float64(after.Bytes-before.Bytes)
	r.Seconds, r.Ops, r.batches = done.Seconds, ops/done.Seconds, float64(done.Batches)/done.Seconds
	r.Bytes = BytesPerOp{VLLM: float64(done.Bytes) / ops, Deltas: s.storedDeltas(bytes) / ops, NATS: bytes / ops}
	r.snapshot, r.messages, r.added = float64(s.snapshots)/ops, float64(s.messages)/done.Seconds, s.added(bytes)
	return r, p.conclude(r)
}

// watched has the engines publish and returns what they did, and the processor time of each process meanwhile.
func (p *plane) watched(rate, seconds float64) (done played, cores Cores, err error) {
	of := []struct {
		p     *process.Process
		cores *float64
	}{{p.ingest, &cores.Ingest}, {p.nats, &cores.NATS}, {p.index, &cores.Index}, {p.engines, &cores.Engines}}
	for _, c := range of {
		used, err := c.p.CPU()
		if err != nil {
			return done, cores, err
		}
		*c.cores = -used
	}
	if done, err = p.play(rate, seconds); err != nil {
		return done, cores, err
	}
	for _, c := range of {
		used, err := c.p.CPU()
		if err != nil {
			return done, cores, err
		}
		*c.cores = (*c.cores + used) / done.Seconds
	}
	return done, cores, nil
}

// conclude compares what the engines published with what ingest folded, and what they hold with what the index answers.
func (p *plane) conclude(r *Live) error {
	var sent total
	if err := p.engines.Ask("sent", engineCall{}, &sent); err != nil {
		return err
	}
	folded, err := counted(p.ingest, "warmpath_ingest_blocks_total")
	if err != nil {
		return err
	}
	r.Lost = sent.Ops - int(folded)
	v, err := p.verify(0)
	if err != nil {
		return err
	}
	r.Equal = v.Equal
	if !v.Equal {
		return fmt.Errorf("%w: %s", errNotEqual, v.Why)
	}
	return nil
}
