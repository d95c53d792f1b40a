package placements

import "github.com/warmpath/warmpath/libs/lru"

// pieceKeys is how many keys one piece of Recent stands for.
const pieceKeys = 16

// maxPieces bounds the pieces of one Recent, whatever size an engine says its cache has: 8 MiB.
const maxPieces = 1 << 17

// Recent remembers what one engine was sent last, as much as its cache holds. An engine's cache forgets what was used
// longest ago, and it serves in the order sent: so this is what will be cached there when all that was sent has run,
// however much of it still waits. What only the index knows is not in it.
//
// It counts whole pieces of 16 keys. The zero value holds nothing.
type Recent struct{ pieces lru.Set } // by a piece's last key

// NewRecent is for a cache of so many blocks, one to a key.
func NewRecent(blocks int) *Recent {
	return &Recent{pieces: lru.New(min(blocks/pieceKeys, maxPieces))}
}

// Size is the number of pieces that are remembered.
func (r *Recent) Size() int { return r.pieces.Len() }

// Sent remembers a prompt's chained keys. Its head is the last to be forgotten, as it is in the engine. Cost: one map
// look a piece, and one write where it was not known.
func (r *Recent) Sent(keys []uint64) {
	for i := len(keys)/pieceKeys*pieceKeys - 1; i >= 0 && r.pieces.Most() > 0; i -= pieceKeys {
		r.pieces.Use(keys[i])
	}
}

// Depth is how many leading keys are remembered; those after the last whole piece count with it. Cost: logarithmic in
// the keys, as no piece is remembered without those before it.
func (r *Recent) Depth(keys []uint64) int {
	low, high := 0, len(keys)/pieceKeys
	for low < high {
		mid := (low + high) / 2
		if r.pieces.Has(keys[(mid+1)*pieceKeys-1]) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low > 0 && low == len(keys)/pieceKeys {
		return len(keys)
	}
	return low * pieceKeys
}
