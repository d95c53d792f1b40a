package index

import (
	"context"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// Bounds on what a stream can make us hold, beside the blocks themselves.
const (
	maxPools     = 1 << 10
	maxBuckets   = maxPools * fleet.Buckets
	maxEngines   = 1 << 17
	maxLogged    = 1 << 10   // causes
	maxSnapshots = 256 << 20 // bytes of incomplete snapshots
)

// fold applies one message. A message that cannot be read costs its own parts only: the next one is believed.
func (w *writer) fold(ctx context.Context, it item) {
	if it.Pool == "" {
		w.refuse("subject", it, it.err)
		return
	}
	b := w.open(it.BucketID)
	if b == nil {
		w.refuse("too many buckets", it, nil)
		return
	}
	if reason, err := unreadable(it); err != nil {
		w.refuse(reason, it, err)
		b.owner = ""
		w.doubtAll(it.BucketID, b)
		return
	}
	switch b.admit(it.message) {
	case repeated:
		w.refuse("repeated", it, nil)
		return
	case fenced:
		w.metrics.fenced.Inc()
		return
	case hole:
		if w.live && !w.rereading {
			w.reread(ctx, it.BucketID, it.seq)
			return
		}
		w.metrics.lost.Inc()
		w.lose(it.BucketID) // it is missing in the stream itself
		b.admit(it.message)
	}
	if claims(it.message) {
		for id := range b.snapshots {
			w.dropSnapshot(b, id)
		}
	}
	for _, part := range it.message.Parts {
		w.part(b, it, part)
	}
}

// open finds a bucket or adds it; nil where there are too many.
func (w *writer) open(id fleet.BucketID) *bucket {
	b := w.buckets[id]
	if b == nil && len(w.buckets) < maxBuckets {
		b = newBucket()
		w.buckets[id] = b
	}
	return b
}

func unreadable(it item) (reason string, err error) {
	switch {
	case it.err != nil:
		return "undecodable", it.err
	case it.message.Version == 0 || it.message.Version > eventlog.Version:
		return "version", fmt.Errorf("version %d, this is %d", it.message.Version, eventlog.Version)
	case it.message.Owner == "":
		return "no owner", fmt.Errorf("the message names no owner")
	}
	return "", nil
}

func (w *writer) part(b *bucket, it item, p *eventsv1.Part) {
	if p.GetClaim() != nil {
		return
	}
	if p.Engine == "" || fleet.Bucket(p.Engine) != it.N {
		w.refuse("foreign engine", it, fmt.Errorf("engine %q is not of this bucket", p.Engine))
		return
	}
	if s := p.GetSnapshot(); s != nil {
		w.snapshot(b, it, p.Engine, s)
		return
	}
	switch {
	case b.snapshots[p.Engine] == nil:
	case p.GetReset_() != nil: // a new life needs no end of the snapshot of the old one
		w.dropSnapshot(b, p.Engine)
	default:
		w.truncated(b, it, p.Engine)
	}
	switch body := p.Body.(type) {
	case *eventsv1.Part_Delta:
		w.delta(b, it, p.Engine, body.Delta)
	case *eventsv1.Part_Reset_:
		if w.know(b, it, p.Engine, it.seq) {
			w.store.pool(it.Pool).x.Reset(p.Engine, it.seq)
		}
	case *eventsv1.Part_Digest:
		w.compare(b, it, p.Engine, body.Digest.Count, body.Digest.Digest)
	default:
		w.refuse("unknown part", it, nil)
	}
}

// know notes that the state of an engine's life is known from here on, and says whether the life still matters.
func (w *writer) know(b *bucket, it item, id string, generation uint64) bool {
	if w.isDead(id, generation) {
		return false
	}
	e := b.engines[id]
	if e == nil {
		p := w.store.pool(it.Pool)
		if w.engines >= maxEngines || p == nil && len(*w.store.pools.Load()) >= maxPools {
			w.refuse("too many engines", it, nil)
			return false
		}
		e = new(engine)
		b.engines[id] = e
		w.engines++
		if p == nil {
			p = w.store.addPool(it.Pool)
		}
		p.engines.Store(id, &seat{bucket: it.N})
	}
	e.generation = generation
	delete(b.wanted, id)
	if b.starting && len(b.wanted) == 0 {
		w.cover()
	}
	return true
}

func (w *writer) delta(b *bucket, it item, id string, d *eventsv1.Delta) {
	if b.engines[id] == nil {
		w.metrics.skipped.Inc()
		return
	}
	p := w.store.pool(it.Pool)
	for _, logged := range d.Runs {
		r, err := eventlog.Run(logged)
		if err != nil {
			w.refuse("unknown run", it, err)
			w.doubt(it.BucketID, b, id)
			continue
		}
		p.x.Apply(id, &r)
	}
	if d.Received == 0 || w.rereading {
		return
	}
	lag := time.Since(time.Unix(0, d.Received))
	if at, ok := p.engines.Load(id); ok {
		at.(*seat).lagUS.Store(lag.Microseconds())
	}
	if w.live {
		w.metrics.lag.Observe(lag.Seconds())
		if w.visible != nil {
			w.visible(d)
		}
	}
}
