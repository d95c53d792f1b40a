package enginesim

import "math/bits"

// none is the index of no block; apart stands where a chain goes on for a block that is in none.
const (
	none  = int32(-1)
	apart = int32(-2)
)

// block is one physical KV block.
type block struct {
	hash  uint64 // engine hash; only if cached
	prev  int32  // neighbours in the free queue; only while ref is 0
	next  int32
	chain int32 // the next block in its bucket or none; apart while the block is not cached, that is full and may be hit
	ref   int32 // sequences that use the block
}

// pool is vLLM's block pool: reference counts, a least-recently-freed queue, and the map of cached blocks. A block
// that nobody uses stays cached, and in the queue, until it is allocated again.
// Copies of equal content are not merged: each is a block of its own, and a lookup finds the oldest.
// The map is chained through the blocks: of one hash the oldest copy comes first.
type pool struct {
	blocks  []block // and one more: the ring's sentinel, the last
	free    int
	counts  bool     // nothing is cached, so that one block is as good as another: they are only counted
	heads   []int32  // buckets by the upper bits of a hash
	shift   uint8    // that leaves those
	mapped  int      // cached blocks, copies counted
	evicted []uint64 // hashes dropped by take since the caller last emptied it
}

// newPool returns a pool of n free blocks, queued in order.
func newPool(n int) *pool {
	width := bits.Len(uint(n)) + 1
	p := &pool{blocks: make([]block, n+1), free: n, heads: make([]int32, 1<<width), shift: uint8(64 - width)}
	for i := range p.blocks {
		p.blocks[i] = block{prev: int32(i) - 1, next: int32(i) + 1, chain: apart}
	}
	p.blocks[0].prev, p.blocks[n].next = int32(n), 0
	p.blocks[n].prev = int32(n) - 1
	if n == 0 {
		p.blocks[0].prev = 0
	}
	p.forget()
	return p
}

func (p *pool) size() int { return len(p.blocks) - 1 }

// take allocates the block that was freed longest ago; there must be one. Its old content leaves the cache.
func (p *pool) take() int32 {
	if p.counts {
		p.free--
		return 0
	}
	id := p.blocks[p.size()].next
	p.unlink(id)
	b := &p.blocks[id]
	b.ref = 1
	if b.chain != apart {
		p.evicted = append(p.evicted, b.hash)
		p.uncache(id)
	}
	return id
}

// touch makes one more sequence use a cached block.
func (p *pool) touch(id int32) {
	if p.blocks[id].ref == 0 {
		p.unlink(id)
	}
	p.blocks[id].ref++
}

// release ends a sequence's use of its blocks, last block first, so that a prefix outlives what follows it.
func (p *pool) release(ids []int32) {
	if p.counts {
		p.free += len(ids)
		return
	}
	for i := len(ids) - 1; i >= 0; i-- {
		b := &p.blocks[ids[i]]
		b.ref--
		if b.ref == 0 {
			p.enqueue(ids[i])
		}
	}
}

// bucket is where a hash is looked up; hashes need not be spread evenly.
func (p *pool) bucket(hash uint64) *int32 { return &p.heads[hash*0x9e3779b97f4a7c15>>p.shift] }

// lookup returns the oldest block with that content.
func (p *pool) lookup(hash uint64) (id int32, ok bool) {
	for id = *p.bucket(hash); id != none; id = p.blocks[id].chain {
		if p.blocks[id].hash == hash {
			return id, true
		}
	}
	return none, false
}

// idle tells whether a block is cached but used by nobody.
func (p *pool) idle(id int32) bool { return p.blocks[id].ref == 0 }

// cache enters a full block under its hash, as the youngest copy.
func (p *pool) cache(id int32, hash uint64) {
	at := p.bucket(hash)
	for *at != none {
		at = &p.blocks[*at].chain
	}
	*at = id
	p.blocks[id].hash, p.blocks[id].chain = hash, none
	p.mapped++
}

// uncache takes a block out of the map.
func (p *pool) uncache(id int32) {
	b := &p.blocks[id]
	at := p.bucket(b.hash)
	for *at != id {
		at = &p.blocks[*at].chain
	}
	*at, b.chain = b.chain, apart
	p.mapped--
}

// reset empties the cache; it refuses while a block is in use.
func (p *pool) reset() bool {
	if p.free != p.size() {
		return false
	}
	for i := range p.blocks {
		p.blocks[i].chain = apart
	}
	p.forget()
	return true
}

// forget empties the map.
func (p *pool) forget() {
	p.mapped = 0
	for i := range p.heads {
		p.heads[i] = none
	}
}

// enqueue appends a block to the free queue.
func (p *pool) enqueue(id int32) {
	end := int32(p.size())
	last := p.blocks[end].prev
	p.blocks[id].prev, p.blocks[id].next = last, end
	p.blocks[last].next = id
	p.blocks[end].prev = id
	p.free++
}

// unlink takes a block out of the free queue.
func (p *pool) unlink(id int32) {
	b := &p.blocks[id]
	p.blocks[b.prev].next = b.next
	p.blocks[b.next].prev = b.prev
	p.free--
}

// copies returns how many cached blocks there are of each hash.
func (p *pool) copies() map[uint64]int {
	m := make(map[uint64]int, p.mapped)
	for i := range p.blocks[:p.size()] {
		if p.blocks[i].chain != apart {
			m[p.blocks[i].hash]++
		}
	}
	return m
}
