package index

import (
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

const (
	unrecorded = 30 * time.Second // an engine that the registry never knew is forgotten after so long
	maxBuried  = 1 << 16
)

// reap drops the engines that the registry says are gone, deletes, or has never known.
func (w *writer) reap(now time.Time) {
	if !w.live {
		return // the log is read first, or an engine would be dropped before its life is known
	}
	view := w.fleet.View()
	for id, b := range w.buckets {
		for name, e := range b.engines {
			if w.lapsed(view, name, e, now) {
				w.drop(id, b, name)
			}
		}
	}
}

// lapsed says whether an engine is to be dropped. A record of an earlier life says nothing about this one.
func (w *writer) lapsed(view *fleet.View, name string, e *engine, now time.Time) bool {
	if r, ok := view.Engines[name]; ok {
		e.recorded, e.recordedAs, e.absent = true, r.Generation, time.Time{}
		return goneRecord(r, e.generation)
	}
	if e.recorded {
		e.recorded = false
		if e.recordedAs == 0 || e.recordedAs >= e.generation {
			if len(w.buried) >= maxBuried {
				clear(w.buried)
			}
			w.buried[name] = e.generation
			return true
		}
	}
	if e.absent.IsZero() || !w.conn.Up() {
		e.absent = now
	}
	return now.Sub(e.absent) > unrecorded
}

// isDead says whether a life is known to be over.
func (w *writer) isDead(name string, generation uint64) bool {
	if r, ok := w.fleet.View().Engines[name]; ok {
		return goneRecord(r, generation) && r.Generation != 0
	}
	last, ok := w.buried[name]
	return ok && last >= generation
}

func goneRecord(r fleet.Engine, generation uint64) bool {
	return r.State == fleet.Gone && (r.Generation == 0 || r.Generation >= generation)
}

func (w *writer) drop(id fleet.BucketID, b *bucket, name string) {
	if b.snapshots[name] != nil {
		w.dropSnapshot(b, name)
	}
	delete(b.engines, name)
	delete(b.wanted, name)
	w.engines--
	p := w.store.pool(id.Pool)
	p.engines.Delete(name)
	p.x.Drop(name)
	w.log.Info("engine dropped from the index", "engine", name)
}
