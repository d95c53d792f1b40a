package ingest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// blockPool is the truth: an engine's blocks, managed and announced as vLLM does it. A prompt's blocks are looked up as
// far as its prefix is cached and all others are stored, also those of which another copy exists; every copy is
// announced; the copy unused for longest is evicted first, a prompt's last block before its first.
type blockPool struct {
	e        *engine
	r        *rand.Rand
	capacity int
	parent   map[uint64]uint64 // of every hash ever stored, 0 for the first block of a prompt
	leaves   []uint64          // last blocks of prompts
	gpu      []uint64          // copies, that unused for longest first
	cpu      map[uint64]int
	next     uint64
}

func newBlockPool(t testing.TB, capacity int, seed uint64, o kvwire.PublisherOptions) *blockPool {
	t.Helper()
	e := newEngine(t, 16, o)
	e.blocks = capacity + 1 // vLLM counts its null block, which is never announced
	return &blockPool{e: e, r: rand.New(rand.NewPCG(seed, 5)), capacity: capacity, parent: map[uint64]uint64{}, cpu: map[uint64]int{}}
}

// chain is the prompt that ends with a block.
func (b *blockPool) chain(leaf uint64) (hashes []uint64) {
	for h := leaf; h != 0; h = b.parent[h] {
		hashes = append(hashes, h)
	}
	slices.Reverse(hashes)
	return hashes
}

// grow makes a prompt: some blocks of an earlier one, then n new ones.
func (b *blockPool) grow(n int) (prompt []uint64) {
	if len(b.leaves) > 0 && b.r.IntN(4) > 0 {
		prompt = b.chain(b.leaves[len(b.leaves)-1-b.r.IntN(min(len(b.leaves), 30))])
		prompt = prompt[:b.r.IntN(len(prompt)+1)]
		prompt = prompt[:min(len(prompt), b.capacity/2)]
	}
	for range n {
		h := b.fresh()
		if len(prompt) > 0 {
			b.parent[h] = prompt[len(prompt)-1]
		}
		prompt = append(prompt, h)
	}
	b.leaves = append(b.leaves, prompt[len(prompt)-1])
	return prompt
}

// fresh is a new hash, of a block that begins a prompt as long as nothing else is said of it.
func (b *blockPool) fresh() uint64 {
	b.next++
	h := b.next * 0x9e3779b97f4a7c15 // as spread over 64 bits as hashes are
	b.parent[h] = 0
	return h
}

// single makes a prompt of one new block.
func (b *blockPool) single() []uint64 {
	h := b.fresh()
	b.leaves = append(b.leaves, h)
	return []uint64{h}
}

// step runs one prompt and returns its events.
func (b *blockPool) step() []kvevent.Event { return b.run(b.grow(1 + b.r.IntN(4))) }

// run stores what a prompt needs and returns the events.
func (b *blockPool) run(prompt []uint64) (events []kvevent.Event) {
	hit, _ := b.depth(prompt)
	return b.compute(prompt, hit)
}

// compute stores a prompt but for its first hit blocks, be they held or not, and returns the events.
func (b *blockPool) compute(prompt []uint64, hit int) (events []kvevent.Event) {
	for _, h := range prompt[:hit] { // used now
		i := slices.Index(b.gpu, h)
		b.gpu = slices.Delete(b.gpu, i, i+1)
	}
	for len(b.gpu) > 0 && len(b.gpu)+len(prompt) > b.capacity {
		events = append(events, b.evict(0))
	}
	if fresh := prompt[hit:]; len(fresh) > 0 {
		events = append(events, b.e.stored(b.parent[fresh[0]], fresh...))
	}
	for _, h := range slices.Backward(prompt) {
		b.gpu = append(b.gpu, h)
	}
	return events
}

// evict drops a copy and returns the event.
func (b *blockPool) evict(i int) kvevent.Event {
	h := b.gpu[i]
	b.gpu = slices.Delete(b.gpu, i, i+1)
	return removed(h)
}

func (b *blockPool) clear() kvevent.Event {
	b.gpu = nil
	return kvevent.Event{Kind: kvevent.Cleared}
}

// restart empties the pool without a word, as a new process does.
func (b *blockPool) restart() {
	b.gpu, b.cpu = nil, map[uint64]int{}
	b.e.pub.Restart()
}

// drop evicts a copy of a block and returns the event.
func (b *blockPool) drop(h uint64) kvevent.Event { return b.evict(slices.Index(b.gpu, h)) }

// publish runs n prompts, each as one batch.
func (b *blockPool) publish(n int) {
	for range n {
		b.e.publish(b.step()...)
	}
}

// copies are those held now, in all tiers.
func (b *blockPool) copies() copies {
	c := held(b.gpu...)
	for h, n := range b.cpu {
		c[copyKey(h, 0)] += n
	}
	return c
}

// depth is how many leading blocks of a prompt are held, in gpu memory and anywhere.
func (b *blockPool) depth(prompt []uint64) (gpu, anywhere int) {
	for gpu < len(prompt) && slices.Contains(b.gpu, prompt[gpu]) {
		gpu++
	}
	for anywhere < len(prompt) && (slices.Contains(b.gpu, prompt[anywhere]) || b.cpu[prompt[anywhere]] > 0) {
		anywhere++
	}
	return gpu, anywhere
}

// The model can fail: what it holds follows from what it publishes.
func TestBlockPoolHoldsWhatItAnnounces(t *testing.T) {
	b := newBlockPool(t, 40, 1, kvwire.PublisherOptions{})
	got, evicted := copies{}, 0
	for range 500 {
		for _, ev := range b.step() {
			for _, h := range ev.Hashes {
				if ev.Kind == kvevent.Stored {
					got[copyKey(h, 0)]++
					continue
				}
				evicted++
				if got[copyKey(h, 0)]--; got[copyKey(h, 0)] == 0 {
					delete(got, copyKey(h, 0))
				}
			}
		}
		if !maps.Equal(got, b.copies()) || len(b.gpu) > b.capacity {
			t.Fatalf("announced %d, held %d of %d", len(got), len(b.gpu), b.capacity)
		}
	}
	twice := 0
	for _, n := range got {
		twice += n - 1
	}
	if evicted < 500 {
		t.Errorf("%d evicted, %d held twice", evicted, twice)
	}
}
