package index

import (
	"fmt"

	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// snapshot gathers parts; the last one replaces the engine's state.
func (w *writer) snapshot(b *bucket, it item, id string, p *eventsv1.Snapshot) {
	s := b.snapshots[id]
	if s != nil && p.Part == 1 {
		w.dropSnapshot(b, id)
		s = nil
	}
	if s == nil {
		if p.Part != 1 || p.Parts < 1 {
			w.metrics.dropped.Inc() // its beginning was cut off, by retention or a claim where nothing of it is known
			if b.engines[id] != nil {
				w.refuse("truncated snapshot", it, nil)
				w.doubt(it.BucketID, b, id)
			}
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
		w.truncated(b, it, id)
		return
	}
	if !s.complete() {
		return
	}
	delete(b.snapshots, id)
	w.held -= s.size
	runs, err := s.read(p)
	if err != nil {
		w.refuse("snapshot", it, fmt.Errorf("engine %s: %w", id, err))
		w.doubt(it.BucketID, b, id)
		return
	}
	w.replace(b, it, id, s.generation, p, runs)
}

// read converts the runs, and checks that they are what the last part says.
func (s *snapshot) read(last *eventsv1.Snapshot) ([]prefix.Run, error) {
	runs := make([]prefix.Run, len(s.runs))
	var sum prefix.Sum
	for i, logged := range s.runs {
		var err error
		if runs[i], err = eventlog.Run(logged); err != nil {
			return nil, err
		}
		sum.Add(&runs[i])
	}
	if uint64(sum.Count) != last.Count || sum.Digest != last.Digest {
		return nil, fmt.Errorf("its runs show %d keys, its last part says %d, or others", sum.Count, last.Count)
	}
	return runs, nil
}

// replace makes a snapshot the engine's state. One that says what is held already changes nothing.
func (w *writer) replace(b *bucket, it item, id string, generation uint64, last *eventsv1.Snapshot, runs []prefix.Run) {
	trusted := b.engines[id] != nil && !b.wanted[id]
	if !w.know(b, it, id, generation) {
		return
	}
	x := w.store.pool(it.Pool).x
	had, known := x.Engine(id)
	evicted := len(runs) > 0 && runs[0].Clear
	if trusted && known && had.Generation == generation && had.Evicted == evicted &&
		uint64(had.VisibleAny) == last.Count && had.Digest == last.Digest {
		return
	}
	if trusted {
		w.metrics.replaced.Inc()
	}
	if had.VisibleAny == 0 { // nothing to keep for readers meanwhile: a half-applied state lies between none and all
		x.Reset(id, generation)
		for i := range runs {
			x.Apply(id, &runs[i])
		}
	} else {
		x.Replace(id, generation, func(yield func(*prefix.Run) bool) {
			for i := range runs {
				if !yield(&runs[i]) {
					return
				}
			}
		})
	}
	w.compare(b, it, id, last.Count, last.Digest)
}

// truncated drops an incomplete snapshot that its own owner broke off. Its engine's state is kept and in doubt: deltas
// may be missing for which the snapshot was to stand.
func (w *writer) truncated(b *bucket, it item, id string) {
	w.dropSnapshot(b, id)
	w.refuse("truncated snapshot", it, nil)
	w.doubt(it.BucketID, b, id)
}

func (w *writer) dropSnapshot(b *bucket, id string) {
	w.metrics.dropped.Inc()
	w.held -= b.snapshots[id].size
	delete(b.snapshots, id)
}

// compare checks an engine's state against its owner's count and digest of the any set and both sets.
func (w *writer) compare(b *bucket, it item, id string, count, digest uint64) {
	if b.engines[id] == nil {
		w.metrics.skipped.Inc()
		return
	}
	info, ok := w.store.pool(it.Pool).x.Engine(id)
	if ok && uint64(info.VisibleAny) == count && info.Digest == digest {
		return
	}
	w.metrics.unequal.Inc()
	if cause := "digest " + id; !w.logged[cause] && len(w.logged) < maxLogged {
		w.logged[cause] = true
		w.log.Error("an engine's state is not what its owner published: asking for a snapshot", "engine", id, "sequence", it.seq,
			"blocks", info.VisibleAny, "published", count)
	}
	w.doubt(it.BucketID, b, id)
}
