package bench

import (
	"math/bits"
	"slices"
	"sync"

	"github.com/warmpath/warmpath/libs/prefix"
)

// workerWords bounds the engines that a Radix can tell apart: 64 a word.
const workerWords = 4

type workers [workerWords]uint64

func (b *workers) has(slot int) bool { return b[slot/64]>>(slot%64)&1 != 0 }
func (b *workers) set(slot int)      { b[slot/64] |= 1 << (slot % 64) }
func (b *workers) clear(slot int)    { b[slot/64] &^= 1 << (slot % 64) }
func (b *workers) empty() bool       { return *b == workers{} }

// cutoff says that a worker holds only the first n blocks of an edge.
type cutoff struct{ slot, n int32 }

// radixNode is a row of blocks that nothing branches off from, and the workers that hold it from its start.
type radixNode struct {
	keys, hashes []uint64
	full         workers  // hold all of it
	cut          []cutoff // hold a part
	parent, rest uint32   // rest: the child that took over the blocks behind a split; 0 for none
	few          []uint32
	many         map[uint64]uint32 // children by first key, once they are more than few
	inner        bool              // has or had children: its edge does not grow any more
}

// place is where a worker's block lies. After splits it may lie further down the rests.
type place struct{ node, pos uint32 }

type radixWorker struct {
	slot   int32
	blocks map[uint64]place // by engine hash: exactly the blocks that the tree says the worker holds
}

// Radix stands in for Dynamo's compressed radix tree: a node is an edge of many blocks, a worker holds an edge up to a
// cutoff, and each worker has a map from its blocks to nodes. Removing a block cuts the worker's edge there, so that
// held blocks behind a hole are forgotten until they are stored anew: it undercounts after interior removals, and never
// overcounts.
//
// Faster than the original where that was easier: one lock for the tree instead of one a node, empty nodes are freed at
// once instead of swept, and a block's position is kept instead of searched. At most 256 engines.
type Radix struct {
	mu      sync.RWMutex
	nodes   []*radixNode // by number; 0 is the root
	free    []uint32
	workers map[string]*radixWorker
	names   []string // by slot; empty where free
	// Rejected counts stores below a parent that the worker is not known to hold.
	Rejected int
}

// NewRadix returns a tree without blocks.
func NewRadix() *Radix {
	return &Radix{nodes: []*radixNode{{inner: true, many: map[uint64]uint32{}}}, workers: map[string]*radixWorker{}}
}

// Match descends along the chain. Workers that hold only part of an edge, or do not go on into the next, end there.
func (t *Radix) Match(keys []uint64, dst []prefix.Depth) []prefix.Depth {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var active workers
	depth := 0
	for at := uint32(0); depth < len(keys); {
		next := t.child(at, keys[depth])
		if next == 0 {
			break
		}
		n := t.nodes[next]
		matched := common(n.keys, keys[depth:])
		for _, c := range n.cut {
			if at == 0 || active.has(int(c.slot)) {
				dst = append(dst, t.depth(int(c.slot), depth+min(int(c.n), matched)))
				active.clear(int(c.slot))
			}
		}
		if at == 0 {
			active = n.full
		} else {
			dst = t.keep(&active, &n.full, depth, dst)
		}
		depth += matched
		if matched < len(n.keys) || active.empty() {
			break
		}
		at = next
	}
	return t.keep(&active, &workers{}, depth, dst)
}

// keep ends the active workers that are not in full.
func (t *Radix) keep(active, full *workers, depth int, dst []prefix.Depth) []prefix.Depth {
	for i := range active {
		for lost := active[i] &^ full[i]; lost != 0; lost &= lost - 1 {
			dst = append(dst, t.depth(64*i+bits.TrailingZeros64(lost), depth))
		}
		active[i] &= full[i]
	}
	return dst
}

func (t *Radix) depth(slot, depth int) prefix.Depth {
	return prefix.Depth{Engine: t.names[slot], GPU: depth, Any: depth}
}

// common is the length of the common prefix.
func common(a, b []uint64) int {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

const fewChildren = 4

func (t *Radix) child(at uint32, key uint64) uint32 {
	n := t.nodes[at]
	if n.many != nil {
		return n.many[key]
	}
	for _, c := range n.few {
		if t.nodes[c].keys[0] == key {
			return c
		}
	}
	return 0
}

func (t *Radix) adopt(parent, child uint32) {
	n := t.nodes[parent]
	n.inner = true
	t.nodes[child].parent = parent
	switch {
	case n.many != nil:
		n.many[t.nodes[child].keys[0]] = child
	case len(n.few) < fewChildren:
		n.few = append(n.few, child)
	default:
		n.many = map[uint64]uint32{t.nodes[child].keys[0]: child}
		for _, c := range n.few {
			n.many[t.nodes[c].keys[0]] = c
		}
		n.few = nil
	}
}

// release frees a node that nobody holds and that has no children, and its parents likewise.
func (t *Radix) release(at uint32) {
	for at != 0 && t.nodes[at] != nil {
		n := t.nodes[at]
		if !n.full.empty() || len(n.cut) > 0 || len(n.few) > 0 || len(n.many) > 0 {
			return
		}
		p := t.nodes[n.parent]
		if p.many != nil {
			delete(p.many, n.keys[0])
		} else {
			i := slices.Index(p.few, at)
			p.few = slices.Delete(p.few, i, i+1)
		}
		if p.rest == at {
			p.rest = 0
		}
		t.nodes[at] = nil
		t.free = append(t.free, at)
		at = n.parent
	}
}

func (t *Radix) add(n *radixNode) uint32 {
	if last := len(t.free) - 1; last >= 0 {
		at := t.free[last]
		t.free = t.free[:last]
		t.nodes[at] = n
		return at
	}
	t.nodes = append(t.nodes, n)
	return uint32(len(t.nodes) - 1)
}
