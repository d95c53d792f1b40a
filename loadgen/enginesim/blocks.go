package enginesim

// none is the index of no block.
const none = int32(-1)

// block is one physical KV block.
type block struct {
	hash    uint64 // engine hash; only if cached
	prev    int32  // neighbours in the free queue; only while ref is 0
	next    int32
	sibling int32 // the next younger copy of the same hash, or none
	ref     int32 // sequences that use the block
	cached  bool  // the block is full and may be hit
}

// pool is vLLM's block pool: reference counts, a least-recently-freed queue, and the map of cached blocks. A block
// that nobody uses stays cached, and in the queue, until it is allocated again.
// Copies of equal content are not merged: each is a block of its own, and a lookup finds the oldest.
type pool struct {
	blocks  []block // and one more: the ring's sentinel, the last
	free    int
	oldest  map[uint64]int32 // engine hash -> oldest copy
	mapped  int              // cached blocks, copies counted
	evicted []uint64         // hashes dropped by take since the caller last emptied it
}

// newPool returns a pool of n free blocks, queued in order.
func newPool(n int) *pool {
	p := &pool{blocks: make([]block, n+1), free: n, oldest: make(map[uint64]int32, n)}
	for i := range p.blocks {
		p.blocks[i] = block{prev: int32(i) - 1, next: int32(i) + 1, sibling: none}
	}
	p.blocks[0].prev, p.blocks[n].next = int32(n), 0
	p.blocks[n].prev = int32(n) - 1
	if n == 0 {
		p.blocks[0].prev = 0
	}
	return p
}

func (p *pool) size() int { return len(p.blocks) - 1 }

// take allocates the block that was freed longest ago; there must be one. Its old content leaves the cache.
func (p *pool) take() int32 {
	id := p.blocks[p.size()].next
	p.unlink(id)
	b := &p.blocks[id]
	b.ref = 1
	if b.cached {
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
	for i := len(ids) - 1; i >= 0; i-- {
		b := &p.blocks[ids[i]]
		b.ref--
		if b.ref == 0 {
			p.enqueue(ids[i])
		}
	}
}

// lookup returns the oldest block with that content.
func (p *pool) lookup(hash uint64) (id int32, ok bool) {
	id, ok = p.oldest[hash]
	return id, ok
}

// idle tells whether a block is cached but used by nobody.
func (p *pool) idle(id int32) bool { return p.blocks[id].ref == 0 }

// cache enters a full block under its hash, as the youngest copy.
func (p *pool) cache(id int32, hash uint64) {
	b := &p.blocks[id]
	b.hash, b.cached, b.sibling = hash, true, none
	p.mapped++
	at, ok := p.oldest[hash]
	if !ok {
		p.oldest[hash] = id
		return
	}
	for p.blocks[at].sibling != none {
		at = p.blocks[at].sibling
	}
	p.blocks[at].sibling = id
}

// uncache takes a block out of the map.
func (p *pool) uncache(id int32) {
	b := &p.blocks[id]
	b.cached = false
	p.mapped--
	at := p.oldest[b.hash]
	if at != id {
		for p.blocks[at].sibling != id {
			at = p.blocks[at].sibling
		}
		p.blocks[at].sibling = b.sibling
		return
	}
	if b.sibling == none {
		delete(p.oldest, b.hash)
		return
	}
	p.oldest[b.hash] = b.sibling
}

// reset empties the cache; it refuses while a block is in use.
func (p *pool) reset() bool {
	if p.free != p.size() {
		return false
	}
	clear(p.oldest)
	p.mapped = 0
	for i := range p.blocks {
		p.blocks[i].cached, p.blocks[i].sibling = false, none
	}
	return true
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
	m := make(map[uint64]int, len(p.oldest))
	for i := range p.blocks[:p.size()] {
		if p.blocks[i].cached {
			m[p.blocks[i].hash]++
		}
	}
	return m
}
