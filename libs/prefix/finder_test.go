package prefix

import (
	"math/rand/v2"
	"testing"
)

// A finder finds what was put in and not cut out, also where words crowd far from home and where several blocks have one.
func TestFinder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	f, blocks := finder{byKey: true}, make([]block, 1<<11+1)
	in, free, crowded := map[uint64]map[uint32]bool{}, []uint32(nil), 0
	for at := range uint32(1 << 11) {
		free = append(free, at+1)
	}
	for step := range 60_000 {
		switch word := uint64(r.IntN(1500)) * 3; {
		case r.IntN(2) == 0 && len(free) > 0:
			at := free[len(free)-1]
			free, blocks[at].key = free[:len(free)-1], word
			f.put(blocks, at)
			if in[word] == nil {
				in[word] = map[uint32]bool{}
			}
			in[word][at] = true
		case len(in[word]) > 0:
			for at := range in[word] {
				f.cut(blocks, at)
				delete(in[word], at)
				free = append(free, at)
				break
			}
		}
		word, seen := uint64(r.IntN(1600))*3, 0
		for at, slot := f.find(blocks, word, -1); at != 0; at, slot = f.find(blocks, word, slot) {
			if !in[word][at] {
				t.Fatalf("step %d: block %d found for word %d", step, at, word)
			}
			seen++
			if f.slots[slot]>>away == far {
				crowded++
			}
		}
		if seen != len(in[word]) {
			t.Fatalf("step %d: %d blocks found for word %d, want %d", step, seen, word, len(in[word]))
		}
	}
	if crowded == 0 || f.used == 0 {
		t.Errorf("%d finds far from home", crowded)
	}
}
