package prefix

// A block is what an Engine knows of one engine hash. Blocks form a tree: root is the parent of those that begin a
// prompt, orphans that of those whose parent is not known. A block without copies stays while it has children.
// Blocks lie in one slice and name one another by position, so the garbage collector has nothing to follow.
type block struct {
	hash   uint64
	key    uint64 // chain state at the block's end; only if keyed
	parent uint32
	first  uint32 // first child, 0 for none
	next   uint32 // next sibling, 0 for none
	prev   uint32 // previous sibling; of the first one: the last
	end    uint32 // tokens from the start of the prompt to the block's end; only if keyed
	list   uint32 // where its index keys begin in Engine.lists; only if keyed and not plain
	gpu    uint16 // copies in gpu memory, group 0
	cpu    uint16 // copies in cpu memory, group 0
	flags  flags
}

type flags uint16

const (
	keyed     flags = 1 << iota
	plain           // shows its own key and no other
	heldGPU         // every indexed group has a copy in gpu memory
	heldAny         // every indexed group has a copy somewhere
	visGPU          // visible in the gpu set
	visAny          // visible in the any set
	loseGPU         // about to be hidden
	loseAny         // about to be hidden
	elsewhere       // has had copies that the counters above do not hold
)

const (
	root    uint32 = 0
	orphans uint32 = 1
	inner   uint32 = 2 // first block that stands for a hash
)

// alloc takes a block from the free list, or a new one, and links it under parent.
func (e *Engine) alloc(hash uint64, parent uint32) uint32 {
	at := e.free
	if at != 0 {
		e.free = e.blocks[at].next
		e.blocks[at] = block{hash: hash}
	} else {
		at = uint32(len(e.blocks))
		e.blocks = append(e.blocks, block{hash: hash})
	}
	e.live++
	e.names.put(e.blocks, at)
	e.link(at, parent)
	return at
}

// link makes a block the last child of parent.
func (e *Engine) link(at, parent uint32) {
	b, p := &e.blocks[at], &e.blocks[parent]
	b.parent, b.next = parent, 0
	if p.first == 0 {
		p.first, b.prev = at, at
		return
	}
	first := &e.blocks[p.first]
	b.prev = first.prev
	e.blocks[first.prev].next = at
	first.prev = at
}

// unlink takes a block, with its children, from its parent.
func (e *Engine) unlink(at uint32) {
	b := &e.blocks[at]
	p := &e.blocks[b.parent]
	switch {
	case p.first != at:
		e.blocks[b.prev].next = b.next
	default:
		p.first = b.next
	}
	switch {
	case b.next != 0:
		e.blocks[b.next].prev = b.prev
	case p.first != 0:
		e.blocks[p.first].prev = b.prev
	}
}

// release frees a block that has neither copies nor children, and then its parents likewise.
func (e *Engine) release(at uint32) {
	for at >= inner && e.blocks[at].first == 0 && !e.hasCopies(at) {
		b := &e.blocks[at]
		parent := b.parent
		e.unlink(at)
		e.names.cut(e.blocks, at)
		if b.flags&keyed != 0 {
			e.keys.cut(e.blocks, at)
			e.freeList(at)
		}
		e.waiting.cut(at)
		*b = block{next: e.free}
		e.free = at
		e.live--
		at = parent
	}
}

// descends reports whether at is ancestor itself or below it.
func (e *Engine) descends(at, ancestor uint32) bool {
	for at >= inner {
		if at == ancestor {
			return true
		}
		if e.blocks[at].flags&keyed != 0 {
			return false // above a keyed block are only keyed ones, and ancestor is none
		}
		at = e.blocks[at].parent
	}
	return false
}

// preorder calls visit for every block below top, parents first, until it returns false.
func (e *Engine) preorder(top uint32, visit func(at uint32) bool) bool {
	at := e.blocks[top].first
	for at != 0 {
		if !visit(at) {
			return false
		}
		at = e.after(at, top, true)
	}
	return true
}

// after is the block that follows at in preorder below top, 0 at the end; without deeper it skips what is below at.
func (e *Engine) after(at, top uint32, deeper bool) uint32 {
	if first := e.blocks[at].first; deeper && first != 0 {
		return first
	}
	for e.blocks[at].next == 0 {
		if at = e.blocks[at].parent; at == top || at < inner {
			return 0
		}
	}
	return e.blocks[at].next
}

// start is where in the prompt a keyed block begins.
func (e *Engine) start(at uint32) uint32 { return e.blocks[e.blocks[at].parent].end }

// A finder finds blocks by engine hash or by key; several blocks may have one key. Open addressing, linear probing,
// backward-shift deletion; 0 is an empty slot.
type finder struct {
	slots []uint32
	used  int
	byKey bool
}

func (f *finder) word(b *block) uint64 {
	if f.byKey {
		return b.key
	}
	return b.hash
}

// scatter spreads keys and engine hashes, which may be anything, over 64 bits.
func scatter(word uint64) uint64 {
	word ^= word >> 32
	word *= 0x9e3779b97f4a7c15
	return word ^ word>>29
}

func (f *finder) home(word uint64) int { return int(scatter(word)) & (len(f.slots) - 1) }

// find returns the first block with this word after the slot of the one before, or 0. The first call passes -1.
func (f *finder) find(blocks []block, word uint64, after int) (at uint32, slot int) {
	if f.used == 0 {
		return 0, -1
	}
	slot = after
	if slot < 0 {
		slot = f.home(word)
	} else {
		slot = (slot + 1) & (len(f.slots) - 1)
	}
	for ; f.slots[slot] != 0; slot = (slot + 1) & (len(f.slots) - 1) {
		if at = f.slots[slot]; f.word(&blocks[at]) == word {
			return at, slot
		}
	}
	return 0, -1
}

func (f *finder) put(blocks []block, at uint32) {
	if f.used >= len(f.slots)*3/4 {
		old := f.slots
		f.slots = make([]uint32, max(16, 2*len(old)))
		for _, o := range old {
			if o != 0 {
				f.insert(blocks, o)
			}
		}
	}
	f.insert(blocks, at)
	f.used++
}

func (f *finder) insert(blocks []block, at uint32) {
	slot := f.home(f.word(&blocks[at]))
	for f.slots[slot] != 0 {
		slot = (slot + 1) & (len(f.slots) - 1)
	}
	f.slots[slot] = at
}

func (f *finder) cut(blocks []block, at uint32) {
	mask := len(f.slots) - 1
	hole := f.home(f.word(&blocks[at]))
	for f.slots[hole] != at {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; f.slots[i] != 0; i = (i + 1) & mask {
		home := f.home(f.word(&blocks[f.slots[i]]))
		if (i-home)&mask >= (i-hole)&mask {
			f.slots[hole], hole = f.slots[i], i
		}
	}
	f.slots[hole] = 0
	f.used--
}
