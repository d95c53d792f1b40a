package bpe

import "math/bits"

// pairs maps two neighbours to their merge. Open addressing, at most half full: most look-ups are of pairs that do not
// merge, and end at the first slot, which is one line of memory. The zero value is empty and must be grown first.
type pairs struct {
	slots []slot // a power of two
	shift int
}

type slot struct {
	key uint64 // of the pair, never 0: see keyOf
	merge
}

type merge struct{ rank, id uint32 }

// keyOf is not 0, because ids are below 2^31.
func keyOf(left, right uint32) uint64 { return uint64(left)<<32 | uint64(right) | 1<<31 }

func newPairs(n int) pairs {
	width := bits.Len(uint(2*n + 1))
	return pairs{slots: make([]slot, 1<<width), shift: 64 - width}
}

// of returns the merge of two neighbours; its rank is never where they do not merge.
func (p *pairs) of(left, right uint32) merge {
	s := p.find(keyOf(left, right))
	if s.key == 0 {
		return merge{rank: never}
	}
	return s.merge
}

// find returns the slot of key, or the empty one where it would be put.
func (p *pairs) find(key uint64) *slot {
	mask := len(p.slots) - 1
	for at := int(key * 0x9E3779B97F4A7C15 >> p.shift); ; at++ {
		if s := &p.slots[at&mask]; s.key == key || s.key == 0 {
			return s
		}
	}
}
