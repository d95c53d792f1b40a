// Package parity judges whether prompts are foreseen to have the tokens that engines then count.
//
// Block keys of other tokens than the engine's match nothing, or what is not the prompt's: better no keys at all. Equal
// counts do not prove equal ids, but a template, a special token or a tokenizer that is not the engine's changes counts.
package parity

import "sync"

const (
	window = 512 // latest prompts judged
	least  = 5   // prompts that must differ before it means anything
)

// Judge holds the latest prompts of one pool and one API against what engines counted. The zero value trusts. Its
// methods may be called from any goroutine; it holds half a kilobyte.
type Judge struct {
	mu         sync.Mutex
	differs    [window]bool
	next       int
	seen       int // at most window
	wrong      int // of those, differing
	distrusted bool
}

// Trusted says whether foreseen tokens may be used.
func (j *Judge) Trusted() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.distrusted
}

// Count takes how many tokens a prompt was foreseen to have and how many its engine counted. Trust ends when more than
// 1 % of the latest 512 prompts differ, five at least, and comes back when less than half of that do, of all 512:
// changed says that it just did one of these. Cost: tens of nanoseconds.
func (j *Judge) Count(foreseen, counted int) (trusted, changed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.differs[j.next] {
		j.wrong--
	}
	j.differs[j.next] = foreseen != counted
	if foreseen != counted {
		j.wrong++
	}
	j.next = (j.next + 1) % window
	j.seen = min(j.seen+1, window)
	was := j.distrusted
	switch {
	case !was:
		j.distrusted = j.wrong >= least && 100*j.wrong > j.seen
	default:
		j.distrusted = j.seen < window || 200*j.wrong >= j.seen
	}
	return !j.distrusted, j.distrusted != was
}
