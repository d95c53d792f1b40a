package index

import (
	"context"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
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
	if it.pool == "" {
		w.refuse("subject", it, it.err)
		return
	}
	b := w.buckets[it.bucketID]
	if b == nil {
		if len(w.buckets) >= maxBuckets {
			w.refuse("too many buckets", it, nil)
			return
		}
		b = newBucket()
		w.buckets[it.bucketID] = b
	}
	if reason, err := unreadable(it); err != nil {
		w.refuse(reason, it, err)
		b.owner = ""
		b.doubt()
		w.ask(it.bucketID)
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
		if !w.rereading {
			w.reread(ctx, it.bucketID, it.seq)
			return
		}
		w.forget(it.bucketID) // it is missing in the stream itself
		b = newBucket()
		w.buckets[it.bucketID] = b
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
	if p.Engine == "" || fleet.Bucket(p.Engine) != it.n {
		w.refuse("foreign engine", it, fmt.Errorf("engine %q is not of this bucket", p.Engine))
		return
	}
	if s := p.GetSnapshot(); s != nil {
		w.snapshot(b, it, p.Engine, s)
		return
	}
	if b.snapshots[p.Engine] != nil {
		w.dropSnapshot(b, p.Engine)
	}
	switch body := p.Body.(type) {
	case *eventsv1.Part_Delta:
		w.delta(b, it, p.Engine, body.Delta)
	case *eventsv1.Part_Reset_:
		if w.know(b, it, p.Engine, it.seq) {
			w.store.pool(it.pool).x.Reset(p.Engine, it.seq)
		}
	case *eventsv1.Part_Digest:
		w.compare(b, it, p.Engine, body.Digest.Digest)
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
		p := w.store.pool(it.pool)
		if w.engines >= maxEngines || p == nil && len(*w.store.pools.Load()) >= maxPools {
			w.refuse("too many engines", it, nil)
			return false
		}
		e = &engine{}
		b.engines[id] = e
		w.engines++
		if p == nil {
			p = w.store.addPool(it.pool)
		}
		p.engines.Store(id, &seat{bucket: it.n})
	}
	e.generation, e.doubted = generation, false
	return true
}

func (w *writer) delta(b *bucket, it item, id string, d *eventsv1.Delta) {
	e := b.engines[id]
	if e == nil {
		w.metrics.skipped.Inc()
		return
	}
	p := w.store.pool(it.pool)
	whole := w.eachRun(it, d.Runs, func(r *prefix.Run) bool {
		p.x.Apply(id, r)
		return true
	})
	e.doubted = e.doubted || !whole
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

// eachRun yields the runs that can be read, and says whether all could.
func (w *writer) eachRun(it item, runs []*eventsv1.Run, yield func(*prefix.Run) bool) (whole bool) {
	whole = true
	for _, logged := range runs {
		r, err := eventlog.Run(logged)
		if err != nil {
			w.refuse("unknown run", it, err)
			whole = false
			continue
		}
		if !yield(&r) {
			return whole
		}
	}
	return whole
}

// snapshot gathers parts; the last one replaces the engine's state.
func (w *writer) snapshot(b *bucket, it item, id string, p *eventsv1.Snapshot) {
	s := b.snapshots[id]
	if s != nil && p.Part == 1 {
		w.dropSnapshot(b, id)
		s = nil
	}
	if s == nil {
		if p.Part != 1 || p.Parts < 1 {
			w.metrics.dropped.Inc() // its beginning was cut off
			return
		}
		s = &snapshot{generation: p.Generation, next: 1, parts: p.Parts, size: emptySnapshot}
		b.snapshots[id] = s
		w.held += s.size
	}
	before := s.size
	fits := s.add(p)
	w.held += s.size - before
	if !fits || w.held > maxSnapshots {
		w.dropSnapshot(b, id)
		return
	}
	if !s.complete() {
		return
	}
	delete(b.snapshots, id)
	w.held -= s.size
	if w.know(b, it, id, s.generation) {
		w.store.pool(it.pool).x.Replace(id, s.generation, func(yield func(*prefix.Run) bool) {
			b.engines[id].doubted = !w.eachRun(it, s.runs, yield)
		})
		w.compare(b, it, id, p.Digest)
	}
}

func (w *writer) dropSnapshot(b *bucket, id string) {
	w.metrics.dropped.Inc()
	w.held -= b.snapshots[id].size
	delete(b.snapshots, id)
}

// compare checks an engine's state against its owner's digest.
func (w *writer) compare(b *bucket, it item, id string, digest uint64) {
	if b.engines[id] == nil {
		w.ask(it.bucketID)
		return
	}
	info, ok := w.store.pool(it.pool).x.Engine(id)
	if ok && info.Digest == digest {
		return
	}
	w.metrics.unequal.Inc()
	b.engines[id].doubted = true
	if cause := "digest " + id; !w.logged[cause] && len(w.logged) < maxLogged {
		w.logged[cause] = true
		w.log.Error("an engine's state is not what its owner published", "engine", id, "sequence", it.seq)
	}
	w.ask(it.bucketID)
}
