package placements

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Recent against a list of pieces in order of use, with prompts that share heads of all lengths.
func TestRecentAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	const pieces = 40
	recent := NewRecent(pieces*pieceKeys + 5)
	trunk := chainOf(30*pieceKeys, 1)
	var order []uint64 // the latest last
	for range 3000 {
		shared := r.IntN(len(trunk) + 1)
		keys := slices.Concat(trunk[:shared], chainOf(r.IntN(8*pieceKeys), r.Uint64N(50)))
		if r.IntN(3) > 0 {
			recent.Sent(keys)
			for i := len(keys)/pieceKeys - 1; i >= 0; i-- {
				last := keys[i*pieceKeys+pieceKeys-1]
				order = append(slices.DeleteFunc(order, func(k uint64) bool { return k == last }), last)
			}
			order = order[max(0, len(order)-pieces):]
		}
		want := 0
		for want < len(keys)/pieceKeys && slices.Contains(order, keys[want*pieceKeys+pieceKeys-1]) {
			want++
		}
		if want *= pieceKeys; want > 0 && want == len(keys)/pieceKeys*pieceKeys {
			want = len(keys)
		}
		if got := recent.Depth(keys); got != want {
			t.Fatalf("%d of %d keys, want %d", got, len(keys), want)
		}
		if recent.Size() != len(order) {
			t.Fatalf("%d pieces, want %d", recent.Size(), len(order))
		}
	}
}

func TestRecentForgetsAPromptFromItsEnd(t *testing.T) {
	recent := NewRecent(10 * pieceKeys)
	a, b := chainOf(8*pieceKeys, 1), chainOf(5*pieceKeys, 2)
	recent.Sent(a)
	recent.Sent(b)
	if got := recent.Depth(a); got != 5*pieceKeys {
		t.Errorf("%d keys of the first prompt are left, want those of 5 pieces", got)
	}
	if got := recent.Depth(b); got != len(b) {
		t.Errorf("%d keys of the second, want all", got)
	}
}

func TestRecentIsBounded(t *testing.T) {
	for _, blocks := range []int{-1, 0, pieceKeys - 1} {
		recent := NewRecent(blocks)
		if recent.Sent(chainOf(1000, 1)); recent.Size() != 0 || recent.Depth(chainOf(1000, 1)) != 0 {
			t.Errorf("%d blocks: %d pieces", blocks, recent.Size())
		}
	}
	if recent := NewRecent(1 << 40); recent.pieces.Most() != maxPieces {
		t.Errorf("an engine with a huge cache makes us keep %d pieces", recent.pieces.Most())
	}
}
