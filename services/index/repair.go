package index

import (
	"math/bits"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
)

const (
	askAfter  = time.Second      // what the registry knows of may be on its way
	askAgain  = 3 * time.Second  // after the first question
	askMost   = time.Minute      // between two questions that bring nothing
	askForget = 30 * time.Second // without a want, until the next question is a first one: longer than between two digests
)

// asking says when to ask the owner of a bucket again.
type asking struct {
	at    time.Time     // not before
	pause time.Duration // until the question after that; 0 before the first one
}

// due says whether to ask now, and if so, plans the next time: ever later, as an owner that cannot help must not be
// kept busy.
func (a *asking) due(now time.Time) bool {
	if now.Before(a.at) {
		return false
	}
	if a.pause == 0 {
		a.pause = askAgain
	}
	a.at = now.Add(a.pause)
	a.pause = min(2*a.pause, askMost)
	return true
}

// rest forgets earlier questions once nothing was wanted for long.
func (a *asking) rest(now time.Time) {
	if now.After(a.at.Add(askForget)) {
		*a = asking{}
	}
}

// doubt notes that the state of an engine may be wrong, until its next reset or snapshot, and asks for one.
func (w *writer) doubt(id fleet.BucketID, b *bucket, engine string) {
	if b.engines[engine] != nil {
		b.wanted[engine] = true
		w.ask(id, b)
	}
}

// doubtAll is doubt for all engines of a bucket.
func (w *writer) doubtAll(id fleet.BucketID, b *bucket) {
	for engine := range b.engines {
		b.wanted[engine] = true
	}
	w.ask(id, b)
}

// ask asks the owner of a bucket for fresh snapshots, unless it was asked lately.
func (w *writer) ask(id fleet.BucketID, b *bucket) {
	if w.live && len(b.wanted) > 0 && b.asking.due(w.now()) {
		w.metrics.asked.Inc()
		_ = w.conn.Send(bus.AskSubject(id.Pool, id.N), nil) // repair asks again
	}
}

// repair compares what is known with the registry, and asks for what is missing or in doubt.
func (w *writer) repair(now time.Time) {
	if !w.live {
		return
	}
	w.miss(w.fleet.View())
	for id, b := range w.buckets {
		switch {
		case len(b.wanted) == 0:
			b.asking.rest(now)
		case b.asking == (asking{}) && !b.starting:
			b.asking = asking{at: now.Add(askAfter), pause: askAgain}
		default:
			w.ask(id, b)
		}
	}
	w.cover()
}

// miss notes in each bucket which engines the registry knows and the log has not told, as their beginning is not in the
// stream any more or could not be read, and forgets those that the registry gave up.
func (w *writer) miss(view *fleet.View) {
	for _, b := range w.buckets {
		for name := range b.wanted {
			if _, ok := view.Engines[name]; !ok && b.engines[name] == nil {
				delete(b.wanted, name)
			}
		}
	}
	for name, r := range view.Engines {
		id := fleet.BucketOf(r.Pool, name)
		b := w.buckets[id]
		switch {
		case w.store.owned>>id.N&1 == 0:
		case r.Generation == 0 || r.State == fleet.Gone:
			if b != nil && b.engines[name] == nil {
				delete(b.wanted, name)
			}
		case b == nil:
			if b = w.open(id); b != nil {
				b.wanted[name] = true
			}
		case b.engines[name] == nil:
			b.wanted[name] = true
		}
	}
}

// begin decides, once the log is read to its end, which buckets can be answered for: those of which nothing is wanted.
func (w *writer) begin(it item) {
	w.miss(it.view)
	for name, r := range it.view.Engines {
		id := fleet.BucketOf(r.Pool, name)
		if b := w.buckets[id]; b != nil && b.engines[name] != nil && r.State != fleet.Gone &&
			b.engines[name].generation < r.Generation && r.Generation <= it.seq {
			b.wanted[name] = true // its last reset is missing
		}
	}
	for id, b := range w.buckets {
		if len(b.wanted) > 0 {
			b.starting = true
			w.log.Error("a bucket cannot be answered for yet: the log does not tell all of its engines; asking their owner",
				"subject", id.Subject(), "engines", len(b.wanted))
			w.ask(id, b)
		}
	}
	w.cover()
}

// cover says which buckets are answered for, and whether any is.
func (w *writer) cover() {
	covered := w.store.owned
	for id, b := range w.buckets {
		if b.starting && len(b.wanted) == 0 {
			b.starting = false
			w.log.Info("the bucket can be answered for", "subject", id.Subject())
		}
		if b.starting {
			covered &^= 1 << id.N
		}
	}
	w.store.covered.Store(covered)
	w.metrics.uncovered.Set(float64(bits.OnesCount64(w.store.owned &^ covered)))
	switch {
	case !w.live:
	case covered == 0:
		w.ready("waiting for snapshots of every bucket")
	default:
		w.ready("")
	}
}
