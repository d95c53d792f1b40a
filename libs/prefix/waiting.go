package prefix

import "slices"

// A waiting holds the tokens of blocks whose parent is not known yet: the only place where tokens are kept.
type waiting struct {
	by     map[uint32]pending
	queue  []ticket // oldest first; tickets of blocks that wait no more are passed over
	serial uint64
	bytes  int
	max    int // blocks
}

type pending struct {
	tokens []uint32
	extras extras
	serial uint64
	bytes  int
}

type ticket struct {
	at     uint32
	serial uint64
}

// waitingBytes is how much a waiting block may take on average: four times a block of 64 tokens.
const waitingBytes = 1 << 10

func newWaiting(blocks int) waiting { return waiting{by: map[uint32]pending{}, max: blocks} }

func (w *waiting) put(at uint32, p pending) {
	w.cut(at)
	w.serial++
	p.serial = w.serial
	w.by[at] = p
	w.bytes += p.bytes
	if len(w.queue) > 2*len(w.by)+64 {
		w.queue = slices.DeleteFunc(w.queue, func(t ticket) bool { return w.by[t.at].serial != t.serial })
	}
	w.queue = append(w.queue, ticket{at, w.serial})
}

func (w *waiting) cut(at uint32) {
	if len(w.by) == 0 {
		return
	}
	if p, ok := w.by[at]; ok {
		w.bytes -= p.bytes
		delete(w.by, at)
	}
}

// trim forgets the oldest tokens until the bounds are kept, and returns of how many blocks.
func (w *waiting) trim() (dropped uint64) {
	for len(w.by) > w.max || len(w.by) > 0 && w.bytes > w.max*waitingBytes {
		t := w.queue[0]
		w.queue = w.queue[1:]
		if w.by[t.at].serial == t.serial {
			w.cut(t.at)
			dropped++
		}
	}
	return dropped
}

// await lets a block wait with its tokens for its parent to be keyed. It returns 0 if there is no room for it.
func (e *Engine) await(s *storing, at uint32, hash uint64, tokens []uint32) uint32 {
	if !e.mayKeep(2) {
		return at
	}
	if at = e.under(at, hash, s.parent); e.blocks[at].parent == orphans {
		e.stats.Malformed++
		return at
	}
	p := pending{tokens: slices.Clone(tokens)}
	p.extras, p.bytes = e.extras.clone()
	p.bytes += 4 * len(tokens)
	e.waiting.put(at, p)
	e.stats.Dropped += e.waiting.trim()
	return at
}

// under finds or makes the block of a hash, which has no key, and hangs it under that of its parent's hash, of which
// perhaps nothing else is known. It stays an orphan where that would make it its own ancestor.
func (e *Engine) under(at uint32, hash, parent uint64) uint32 {
	if at != 0 && e.blocks[at].parent != orphans {
		return at
	}
	if hash == parent {
		if at == 0 {
			at = e.alloc(hash, orphans)
		}
		return at
	}
	over, _ := e.names.find(e.blocks, parent, -1)
	if over == 0 {
		over = e.alloc(parent, orphans)
	}
	switch {
	case at == 0:
		return e.alloc(hash, over)
	case !e.descends(over, at):
		e.unlink(at)
		e.link(at, over)
	}
	return at
}

// resolve gives keys to the blocks that have waited for this one, and shows them.
func (e *Engine) resolve(top uint32, o *output) {
	for at := e.blocks[top].first; at != 0; {
		p, ok := e.waiting.by[at]
		if ok = ok && e.fitsAfter(e.blocks[at].parent, len(p.tokens)); ok {
			e.nameByTokens(at, e.blocks[at].parent, p.tokens, &p.extras)
			t := e.describe(at)
			e.rise(at, &t, o)
		}
		at = e.after(at, top, ok)
	}
}
