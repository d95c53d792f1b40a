package lru

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The set against a slice in order of use.
func TestSetIsAListInOrderOfUse(t *testing.T) {
	for _, most := range []int{0, 1, 2, 7, 100} {
		rng := rand.New(rand.NewPCG(uint64(most), 1))
		s := New(most)
		var order []uint64 // the latest last
		for range 5000 {
			key := rng.Uint64N(uint64(2*most + 2))
			if i := slices.Index(order, key); i >= 0 {
				order = slices.Delete(order, i, i+1)
			}
			order = append(order, key)
			order = order[max(0, len(order)-most):]
			s.Use(key)
			if s.Len() != len(order) || len(s.nodes) > most+1 {
				t.Fatalf("most %d: %d keys in %d nodes, want %d", most, s.Len(), len(s.nodes), len(order))
			}
			for key := range uint64(2*most + 2) {
				if s.Has(key) != slices.Contains(order, key) {
					t.Fatalf("most %d: %d is held: %v", most, key, s.Has(key))
				}
			}
		}
	}
}
