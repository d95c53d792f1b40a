package enginesim

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// A prompt whose hashes the caller knows is computed, found and announced as one that the core has hashed.
func TestKnownHashes(t *testing.T) {
	run := func(known bool) (digest [32]byte) {
		c, h := NewCore(CoreOptions{Blocks: 18, Hash: QuickHash{3}}), sha256.New()
		for i := range 60 {
			r := &Request{ID: fmt.Sprint(i), Prompt: sequential(i%3*1000, 90+i), MaxTokens: 40, Answer: uint64(i % 5)}
			if known {
				r.Hashes = QuickHash{3}.Chain(nil, r.Prompt, 16)
			}
			if err := c.Submit(r); err != nil {
				t.Fatal(err)
			}
			var step StepResult
			for range 9 {
				c.Step(&step)
				batch := kvevent.Batch{Events: step.Events}
				h.Write(kvevent.Append(nil, &batch, kvevent.MapForm))
			}
		}
		if s := c.Stats(); s.Hits == 0 || s.Preemptions == 0 {
			t.Fatalf("nothing was tried: %+v", s)
		}
		return [32]byte(h.Sum(nil))
	}
	if run(true) != run(false) {
		t.Error("events differ")
	}
}

// The map against one of slices, oldest copy first, with hashes that crowd into few buckets.
func TestPoolIsAMapOfCopies(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	p, model := newPool(50), map[uint64][]int32{}
	where := map[int32]uint64{}
	for range 20_000 {
		hash := uint64(rng.IntN(30)) * 0xf1de83e19937733d // undoes the factor of bucket: all in the first one
		if id := int32(rng.IntN(50)); rng.IntN(2) == 0 {
			if _, ok := where[id]; ok {
				p.uncache(id)
				h := where[id]
				model[h] = slices.DeleteFunc(model[h], func(x int32) bool { return x == id })
				delete(where, id)
			}
		} else if _, ok := where[id]; !ok {
			p.cache(id, hash)
			model[hash], where[id] = append(model[hash], id), hash
		}
		id, ok := p.lookup(hash)
		if copies := model[hash]; ok != (len(copies) > 0) || ok && id != copies[0] {
			t.Fatalf("%x: block %d, %v, want the first of %v", hash, id, ok, copies)
		}
		if p.mapped != len(where) {
			t.Fatalf("%d blocks mapped, want %d", p.mapped, len(where))
		}
	}
}
