package gates

import (
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
)

// fold is the plain reading of an engine's events: a map of copies, and what is wrong with the events.
type fold struct {
	copies          map[uint64]int
	ever            map[uint64]bool
	stored, removed int
	orphans         int // blocks announced before their parent
	unknown         int // removals of what is not held
}

func newFold() *fold { return &fold{copies: map[uint64]int{}, ever: map[uint64]bool{}} }

func (f *fold) add(events []kvevent.Event) {
	for i := range events {
		switch e := &events[i]; e.Kind {
		case kvevent.Cleared:
			clear(f.copies)
			f.removed = f.stored
		case kvevent.Stored:
			if e.HasParent && !f.ever[e.Parent] {
				f.orphans++
			}
			for _, h := range e.Hashes {
				f.copies[h]++
				f.ever[h] = true
				f.stored++
			}
		case kvevent.Removed:
			for _, h := range e.Hashes {
				if f.copies[h] == 0 {
					f.unknown++
					continue
				}
				f.removed++
				if f.copies[h]--; f.copies[h] == 0 {
					delete(f.copies, h)
				}
			}
		}
	}
}

// productFold folds events as ingest does, and returns the copies that it counts.
func productFold(e *prefix.Engine, events []kvevent.Event) map[uint64]int {
	for i := range events {
		e.Fold(&events[i], nil)
	}
	copies := map[uint64]int{}
	e.Copies(func(_ prefix.Tier, _ int, hash uint64, n int) bool {
		copies[hash] += n
		return true
	})
	return copies
}
