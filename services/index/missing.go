package index

import (
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

const (
	askAfter = time.Second // what the registry knows of may be on its way
	askMost  = time.Minute // between two questions that bring nothing
)

// want says when to ask for a bucket.
type want struct {
	at    time.Time
	pause time.Duration // until the question after that
}

// askForMissing asks for the buckets in which an engine of the registry is unknown here, as its beginning is not in the
// stream any more or the stream is another; or known wrongly, as a part of its log could not be read.
func (w *writer) askForMissing(now time.Time) {
	if !w.live {
		return
	}
	missing := map[bucketID]bool{}
	for name, r := range w.fleet.View().Engines {
		id := bucketID{r.Pool, fleet.Bucket(name)}
		if r.Generation == 0 || r.State == fleet.Gone || w.store.owned>>id.n&1 == 0 {
			continue
		}
		if b := w.buckets[id]; b == nil || b.engines[name] == nil || b.engines[name].doubted {
			missing[id] = true
		}
	}
	for id := range w.wanting {
		if !missing[id] {
			delete(w.wanting, id)
		}
	}
	for id := range missing {
		q, ok := w.wanting[id]
		switch {
		case !ok:
			q = want{at: now.Add(askAfter), pause: 3 * askAfter}
		case !now.Before(q.at):
			w.ask(id)
			q = want{at: now.Add(q.pause), pause: min(2*q.pause, askMost)}
		}
		w.wanting[id] = q
	}
}

// doubt notes that the states of a bucket's engines may be wrong, until each has a reset or a snapshot.
func (b *bucket) doubt() {
	for _, e := range b.engines {
		e.doubted = true
	}
}
