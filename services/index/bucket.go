package index

import (
	"time"

	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// bucket is where the writer stands in one bucket's log.
type bucket struct {
	owner     string // of the last claim; empty where nothing is known, and the next message is believed
	counter   uint64 // of the owner's last message
	engines   map[string]*engine
	snapshots map[string]*snapshot // incomplete ones, by engine

	// wanted are engines of which a snapshot or reset is wanted: known ones whose state may be wrong, and ones that the
	// registry knows and the log does not tell.
	wanted   map[string]bool
	asking   asking
	starting bool // it is not answered for until nothing is wanted
}

// engine is what the writer remembers of an engine whose state it has.
type engine struct {
	generation uint64
	recorded   bool      // the registry has known it, with
	recordedAs uint64    // this generation
	absent     time.Time // since when the registry does not know it
}

func newBucket() *bucket {
	return &bucket{engines: make(map[string]*engine), snapshots: make(map[string]*snapshot), wanted: make(map[string]bool)}
}

// verdict is what becomes of a message.
type verdict int

const (
	accepted verdict = iota
	repeated         // seen before
	fenced           // its owner was superseded
	hole             // one or more before it are missing
)

// admit judges a message by owner and counter, and notes it where it is accepted.
func (b *bucket) admit(m *eventsv1.Message) verdict {
	switch {
	case b.owner == "" || claims(m):
	case m.Owner != b.owner:
		return fenced
	case m.Counter == b.counter:
		return repeated
	case m.Counter != b.counter+1:
		return hole
	}
	b.owner, b.counter = m.Owner, m.Counter
	return accepted
}

func claims(m *eventsv1.Message) bool {
	for _, p := range m.Parts {
		if p.GetClaim() != nil {
			return true
		}
	}
	return false
}

// snapshot is an incomplete snapshot of one engine.
type snapshot struct {
	generation  uint64
	next, parts uint32
	runs        []*eventsv1.Run
	size        int // bytes, about
}

// emptySnapshot is about what a snapshot takes beside its runs.
const emptySnapshot = 512

// add takes the next part and says whether it fits to those before. Engine hashes are not kept: nobody here needs them.
func (s *snapshot) add(p *eventsv1.Snapshot) bool {
	if p.Part != s.next || p.Parts != s.parts || p.Generation != s.generation {
		return false
	}
	s.next++
	for _, r := range p.Runs {
		r.Hashes = nil
		s.size += sizeOf(r)
	}
	s.runs = append(s.runs, p.Runs...)
	return true
}

func (s *snapshot) complete() bool { return s.next > s.parts }

// sizeOf is about how many bytes a logged run takes in memory.
func sizeOf(r *eventsv1.Run) int { return 200 + 8*(len(r.Hashes)+len(r.Keys)+len(r.Shown)) }
