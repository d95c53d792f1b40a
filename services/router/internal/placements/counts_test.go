package placements

import (
	"math/rand/v2"
	"testing"
)

// The counters against a map, with keys that crowd at both ends of the table.
func TestCountsAreAMap(t *testing.T) {
	const undo = 0xf1de83e19937733d // takes the factor of home back
	for _, keys := range []uint64{3, 40, 2000} {
		rng := rand.New(rand.NewPCG(keys, 1))
		var c counts
		model := map[keyAt]int32{}
		for range 50_000 {
			key := keyAt(undo * (rng.Uint64N(keys)/2<<50 - rng.Uint64N(2)))
			if n := model[key]; n > 0 && rng.IntN(2) == 0 {
				c.dec(key)
				if model[key]--; n == 1 {
					delete(model, key)
				}
			} else if rng.IntN(3) == 0 {
				c.inc(key)
				model[key]++
			}
			if c.get(key) != model[key] || c.used != len(model) {
				t.Fatalf("%x: %d of %d keys, want %d of %d", key, c.get(key), c.used, model[key], len(model))
			}
		}
		for key, n := range model {
			if c.get(key) != n {
				t.Fatalf("%x: %d, want %d", key, c.get(key), n)
			}
		}
	}
}
