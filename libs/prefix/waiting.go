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
	parent := e.ghost(s.parent)
	if at == 0 && s.parent != hash {
		at = e.alloc(hash, parent)
	} else if at == 0 {
		at = parent
	}
	if e.blocks[at].parent == orphans && !e.hang(at, parent) {
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

// ghost finds the block of a hash or makes one of which nothing is known but that it is a parent.
func (e *Engine) ghost(hash uint64) uint32 {
	at, _ := e.names.find(e.blocks, hash, -1)
	if at == 0 {
		at = e.alloc(hash, orphans)
	}
	return at
}

// hang puts an orphan under a parent that is not keyed, unless that is below it.
func (e *Engine) hang(at, parent uint32) bool {
	if e.descends(parent, at) {
		return false
	}
	e.unlink(at)
	e.link(at, parent)
	return true
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
