package prefix

import "slices"

// A place is where a copy may lie.
type place struct {
	tier  Tier
	group int32
}

// copyOf is a copy's place and the block, for the copies that a block's own counters do not hold.
type copyOf struct {
	block uint32
	place
}

// foreign is a copy of a block that is counted only.
type foreign struct {
	hash uint64
	place
}

const (
	tiers     = 3
	maxCopies = 1<<16 - 1 // of one block in one place
	maxGroups = 32        // indexed groups
	maxGroup  = 1 << 15   // group numbers
)

// count returns how many copies of a block lie in a place.
func (e *Engine) count(at uint32, p place) int {
	switch b := &e.blocks[at]; {
	case p == place{tier: GPU}:
		return int(b.gpu)
	case p == place{tier: CPU}:
		return int(b.cpu)
	case b.flags&elsewhere == 0:
		return 0
	}
	return int(e.more[copyOf{at, p}])
}

// setCount changes the counters alone.
func (e *Engine) setCount(at uint32, p place, n int) {
	b := &e.blocks[at]
	if p == (place{tier: GPU}) {
		b.gpu = uint16(n)
		return
	}
	if p == (place{tier: CPU}) {
		b.cpu = uint16(n)
		return
	}
	b.flags |= elsewhere
	if !slices.Contains(e.places, p) {
		e.places = append(e.places, p)
	}
	if n == 0 {
		delete(e.more, copyOf{at, p})
	} else {
		e.more[copyOf{at, p}] = uint16(n)
	}
}

// hasCopies reports whether any copy of a block is held anywhere.
func (e *Engine) hasCopies(at uint32) bool {
	b := &e.blocks[at]
	if b.gpu != 0 || b.cpu != 0 {
		return true
	}
	if b.flags&elsewhere == 0 {
		return false
	}
	for _, p := range e.places {
		if e.count(at, p) != 0 {
			return true
		}
	}
	return false
}

// held finds out what a block's counters mean for both sets.
func (e *Engine) held(at uint32) flags {
	b := &e.blocks[at]
	if b.flags&elsewhere == 0 && len(e.groups) == 1 && e.groups[0] == 0 {
		switch {
		case b.gpu != 0:
			return heldGPU | heldAny
		case b.cpu != 0:
			return heldAny
		}
		return 0
	}
	h := heldGPU | heldAny
	for _, g := range e.groups {
		if e.count(at, place{GPU, g}) != 0 {
			continue
		}
		h &^= heldGPU
		if e.count(at, place{CPU, g}) == 0 && e.count(at, place{Storage, g}) == 0 {
			return 0
		}
	}
	if len(e.groups) == 0 {
		return 0
	}
	return h
}

// tally keeps the totals when copies are added or removed.
func (e *Engine) tally(t Tier, n int) {
	e.total[t] += n
	if t == GPU && e.o.Blocks > 0 && e.total[GPU] > e.o.Blocks {
		e.overfull = true
	}
}

// Copies yields every counted copy with its count, in no order, until yield returns false.
func (e *Engine) Copies(yield func(tier Tier, group int, hash uint64, copies int) bool) {
	for f, n := range e.others {
		if at, _ := e.names.find(e.blocks, f.hash, -1); at != 0 && e.count(at, f.place) != 0 {
			continue // below
		}
		if !yield(f.tier, int(f.group), f.hash, int(n)) {
			return
		}
	}
	for _, top := range []uint32{root, orphans} {
		if !e.preorder(top, func(at uint32) bool { return e.copiesOf(at, yield) }) {
			return
		}
	}
}

func (e *Engine) copiesOf(at uint32, yield func(Tier, int, uint64, int) bool) bool {
	for _, p := range e.places {
		n := e.count(at, p)
		if n == 0 {
			continue
		}
		hash := e.blocks[at].hash
		n += int(e.others[foreign{hash, p}])
		if !yield(p.tier, int(p.group), hash, n) {
			return false
		}
	}
	return true
}
