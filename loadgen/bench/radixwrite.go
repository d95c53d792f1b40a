package bench

import (
	"math/bits"
	"slices"

	"github.com/warmpath/warmpath/libs/prefix"
)

// Apply stores the run's blocks below their parent, or removes them.
func (t *Radix) Apply(s *Step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.worker(s.Engine)
	if w == nil {
		return
	}
	if s.Run.Copy != prefix.Removed {
		t.store(w, &s.Run)
		return
	}
	for _, hash := range s.Run.Hashes {
		t.remove(w, hash)
	}
}

// worker returns nil where there are too many.
func (t *Radix) worker(name string) *radixWorker {
	if w := t.workers[name]; w != nil {
		return w
	}
	slot := slices.Index(t.names, "")
	switch {
	case slot >= 0:
		t.names[slot] = name
	case len(t.names) == 64*workerWords:
		return nil
	default:
		slot = len(t.names)
		t.names = append(t.names, name)
	}
	w := &radixWorker{slot: int32(slot), blocks: map[uint64]place{}}
	t.workers[name] = w
	return w
}

// find returns where a worker's block lies now.
func (t *Radix) find(p place) (*radixNode, place) {
	n := t.nodes[p.node]
	for int(p.pos) >= len(n.keys) {
		p.pos -= uint32(len(n.keys))
		p.node = n.rest
		n = t.nodes[p.node]
	}
	return n, p
}

func (t *Radix) store(w *radixWorker, r *prefix.Run) {
	at, pos := uint32(0), 0
	if r.HasParent {
		p, held := w.blocks[r.Parent]
		if !held {
			t.Rejected++
			return
		}
		_, p = t.find(p)
		at, pos = p.node, int(p.pos)+1
	}
	keys, hashes := r.Keys, r.Hashes
	for len(keys) > 0 {
		n := t.nodes[at]
		if pos == len(n.keys) {
			if next := t.child(at, keys[0]); next != 0 {
				at, pos = next, 0
				continue
			}
			if n.inner {
				n = &radixNode{keys: slices.Clone(keys), hashes: slices.Clone(hashes)}
				leaf := t.add(n)
				t.adopt(at, leaf)
				at, pos = leaf, 0
			} else {
				n.grow(keys, hashes)
			}
		}
		same := common(n.keys[pos:], keys)
		t.hold(w, at, pos+same)
		keys, hashes, pos = keys[same:], hashes[same:], pos+same
		if len(keys) > 0 && pos < len(n.keys) {
			t.split(at, pos)
		}
	}
}

// grow appends to a leaf's edge. Nobody holds what is new yet.
func (n *radixNode) grow(keys, hashes []uint64) {
	for i, word := range n.full {
		for ; word != 0; word &= word - 1 {
			n.cut = append(n.cut, cutoff{int32(64*i + bits.TrailingZeros64(word)), int32(len(n.keys))})
		}
	}
	n.full = workers{}
	n.keys, n.hashes = append(n.keys, keys...), append(n.hashes, hashes...)
}

func (n *radixNode) held(slot int32) int {
	if n.full.has(int(slot)) {
		return len(n.keys)
	}
	for _, c := range n.cut {
		if c.slot == slot {
			return int(c.n)
		}
	}
	return 0
}

func (n *radixNode) setHeld(slot int32, blocks int) {
	n.full.clear(int(slot))
	at := slices.IndexFunc(n.cut, func(c cutoff) bool { return c.slot == slot })
	switch {
	case blocks == len(n.keys):
		n.full.set(int(slot))
	case blocks > 0 && at >= 0:
		n.cut[at].n = int32(blocks)
		return
	case blocks > 0:
		n.cut = append(n.cut, cutoff{slot, int32(blocks)})
		return
	}
	if at >= 0 {
		n.cut = slices.Delete(n.cut, at, at+1)
	}
}

// hold says that a worker holds the first blocks of an edge.
func (t *Radix) hold(w *radixWorker, at uint32, blocks int) {
	n := t.nodes[at]
	before := n.held(w.slot)
	if blocks <= before {
		return
	}
	n.setHeld(w.slot, blocks)
	for i := before; i < blocks; i++ {
		w.blocks[n.hashes[i]] = place{at, uint32(i)}
	}
}

// split moves the blocks of an edge from pos on, and all children, into a new child.
func (t *Radix) split(at uint32, pos int) {
	n := t.nodes[at]
	tail := &radixNode{
		keys: n.keys[pos:], hashes: n.hashes[pos:], full: n.full, rest: n.rest, few: n.few, many: n.many, inner: n.inner,
	}
	number := t.add(tail)
	for _, c := range tail.few {
		t.nodes[c].parent = number
	}
	for _, c := range tail.many {
		t.nodes[c].parent = number
	}
	cut := n.cut
	n.keys, n.hashes, n.cut = n.keys[:pos:pos], n.hashes[:pos:pos], nil
	n.few, n.many, n.rest = nil, nil, number
	t.adopt(at, number)
	for _, c := range cut {
		if int(c.n) > pos {
			tail.cut = append(tail.cut, cutoff{c.slot, c.n - int32(pos)})
		}
		n.setHeld(c.slot, min(int(c.n), pos))
	}
	t.release(number) // where nobody holds it
}

// remove cuts the worker's edge at a block. What it held behind it on that edge is forgotten too.
func (t *Radix) remove(w *radixWorker, hash uint64) {
	p, held := w.blocks[hash]
	if !held {
		return
	}
	n, p := t.find(p)
	for _, gone := range n.hashes[p.pos:n.held(w.slot)] {
		delete(w.blocks, gone)
	}
	n.setHeld(w.slot, int(p.pos))
	if p.pos == 0 {
		t.release(p.node)
	}
}

// Drop looks at every block of the engine.
func (t *Radix) Drop(engine string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.workers[engine]
	if w == nil {
		return
	}
	touched := map[uint32]struct{}{}
	for _, p := range w.blocks {
		if n, p := t.find(p); n.held(w.slot) > 0 {
			n.setHeld(w.slot, 0)
			touched[p.node] = struct{}{}
		}
	}
	for at := range touched {
		t.release(at)
	}
	delete(t.workers, engine)
	t.names[w.slot] = ""
}
