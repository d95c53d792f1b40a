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
	twin            // has, or has had, the key of another block
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
		if n := len(e.blocks); n == cap(e.blocks) && n > 1<<12 {
			e.blocks = append(make([]block, 0, n+n/8), e.blocks...) // append would leave a fifth unused
		}
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
