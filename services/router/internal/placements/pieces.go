package placements

import (
	"time"

	"github.com/zeebo/xxh3"
)

const (
	// PieceBytes is the length of the pieces in which prompt bytes are chained.
	PieceBytes = 512
	// halfPieces bounds each of two generations of pieces; the older one is forgotten when the newer is full.
	halfPieces = 1 << 18
	// maxAge is how long an engine is believed to keep a prompt that nobody has confirmed.
	maxAge = 10 * time.Minute
)

// Chain appends to dst the chained hashes of the whole pieces of text. scope tells apart what must not be shared:
// pool, adapter, salt, tools. Cost: about 0.1 ns a byte.
func Chain(dst []uint64, scope uint64, text []byte) []uint64 {
	for state := scope; len(text) >= PieceBytes; text = text[PieceBytes:] {
		state = xxh3.HashSeed(text[:PieceBytes], state)
		dst = append(dst, state)
	}
	return dst
}

// Scope mixes parts into the scope of a chain.
func Scope(parts ...[]byte) uint64 {
	var state uint64
	for _, p := range parts {
		state = xxh3.HashSeed(p, state^uint64(len(p)))
	}
	return state
}

// Pieces remembers which engine was sent which chained pieces, and when. The zero value is ready. When it is full it
// forgets what was sent longest ago, half at a time.
type Pieces struct {
	young, old map[keyAt]time.Time
}

// Size is the number of pieces that are remembered.
func (p *Pieces) Size() int { return len(p.young) + len(p.old) }

// Sent remembers that a prompt went to an engine. Cost: one map write a piece.
func (p *Pieces) Sent(engine uint32, chain []uint64, now time.Time) {
	if p.young == nil || len(p.young) >= halfPieces {
		p.old, p.young = p.young, make(map[keyAt]time.Time)
	}
	for _, h := range chain {
		p.young[at(h, engine)] = now
	}
}

// Depth is how many leading pieces engine was sent lately. A chain is always remembered from its start, so that the
// search may jump. Cost: logarithmic in the pieces.
func (p *Pieces) Depth(engine uint32, chain []uint64, now time.Time) int {
	low, high := 0, len(chain)
	for low < high {
		mid := low + (high-low)/8 // most engines know little or nothing
		if p.lately(at(chain[mid], engine), now) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

func (p *Pieces) lately(key keyAt, now time.Time) bool {
	sent, ok := p.young[key]
	if !ok {
		sent, ok = p.old[key]
	}
	return ok && now.Sub(sent) < maxAge
}
