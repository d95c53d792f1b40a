package prefix

// shift is a change of one of the sets, or of both.
type shift struct{ gpu, any bool }

func change(yes bool, c Change) Change {
	if yes {
		return c
	}
	return Unchanged
}

// wanted is which visibility a block should have: held, and its parent visible.
func (e *Engine) wanted(at uint32) flags {
	b := &e.blocks[at]
	p := e.blocks[b.parent].flags
	p &^= (p & (loseGPU | loseAny)) >> 2
	if b.flags&keyed == 0 {
		return 0
	}
	return (b.flags & (heldGPU | heldAny)) << 2 & p
}

// rise makes a block visible where it should be, writes t, or if it is nil an entry for the sets alone, and reports
// whether anything rose.
func (e *Engine) rise(at uint32, t *entry, o *output) bool {
	rising := e.wanted(at) &^ e.blocks[at].flags
	if rising != 0 || t != nil {
		e.write(at, Added, rising, t, o)
	}
	return rising != 0
}

// raise is rise, and then for all that is below, parents first.
func (e *Engine) raise(at uint32, t *entry, o *output) {
	if e.rise(at, t, o) {
		e.raiseBelow(at, o)
	}
}

func (e *Engine) raiseBelow(top uint32, o *output) {
	for at := e.blocks[top].first; at != 0; {
		at = e.after(at, top, e.rise(at, nil, o))
	}
}

// sink hides what should no longer be visible at and below a block, deepest first, and writes t for the block itself
// last. With at = root it looks at everything.
func (e *Engine) sink(at uint32, t *entry, o *output) {
	e.sinking = e.sinking[:0]
	if at >= inner && e.lose(at) || at == root {
		for n := e.blocks[at].first; n != 0; {
			n = e.after(n, at, e.lose(n))
		}
	}
	for i := len(e.sinking) - 1; i >= 0; i-- {
		if n := e.sinking[i]; n != at {
			e.write(n, Removed, e.losing(n), nil, o)
		}
	}
	if at >= inner {
		e.write(at, Removed, e.losing(at), t, o)
	}
}

func (e *Engine) losing(at uint32) flags { return e.blocks[at].flags & (loseGPU | loseAny) >> 2 }

// lose marks what a block is about to lose.
func (e *Engine) lose(at uint32) bool {
	lost := e.blocks[at].flags & (visGPU | visAny) &^ e.wanted(at)
	if lost == 0 {
		return false
	}
	e.blocks[at].flags |= lost << 2
	e.sinking = append(e.sinking, at)
	return true
}

// write changes a block's visibility by vis and writes what that does to the index keys: together with t where all
// keys change alike, else beside it.
func (e *Engine) write(at uint32, c Change, vis flags, t *entry, o *output) {
	b := &e.blocks[at]
	if b.flags&keyed == 0 {
		if t != nil {
			o.emit(t)
		}
		return
	}
	g, a := vis&visGPU != 0, vis&visAny != 0
	if c == Added {
		b.flags |= vis
	} else {
		b.flags &^= vis | vis<<2
	}
	if b.flags&plain != 0 && (t == nil || !t.split) {
		s := e.turnPlain(at, c, g, a)
		if t == nil {
			t = &e.spare
			*t = entry{hasKey: true, key: b.key}
			if !s.gpu && !s.any {
				return
			}
		}
		t.gpu, t.any = change(s.gpu, c), change(s.any, c)
		o.emit(t)
		return
	}
	e.writeList(at, c, g, a, t, o)
}

// writeList is write for a block that shows several index keys, or none, or whose run is split.
func (e *Engine) writeList(at uint32, c Change, g, a bool, t *entry, o *output) {
	keys := e.shows(at)
	e.shifts = e.shifts[:0]
	if t != nil {
		t.split = c == Added
	}
	alike := true
	for i := range keys {
		if c == Removed {
			i = len(keys) - 1 - i
		}
		s := e.turn(at, keys[i], c, g, a)
		alike = alike && s == shift{g, a}
		e.shifts = append(e.shifts, s)
	}
	if t != nil {
		if c == Added || alike && (g || a) {
			t.split, t.shown, t.deepFirst = true, keys, c == Removed
		}
		if alike {
			t.gpu, t.any = change(g, c), change(a, c)
			o.emit(t)
			return
		}
		if c == Added { // names its keys, and shows none of them
			o.emit(t)
		}
	}
	for i, s := range e.shifts {
		if c == Removed {
			i = len(keys) - 1 - i
		}
		if s.gpu || s.any {
			o.emit(&entry{gpu: change(s.gpu, c), any: change(s.any, c), hasKey: true, key: keys[i]})
		}
	}
	if t != nil && c == Removed {
		o.emit(t)
	}
}

// turn is what becoming visible or hidden in some sets does to one index key of a block.
func (e *Engine) turn(at uint32, key uint64, c Change, g, a bool) shift {
	if e.blocks[at].flags&plain != 0 {
		return e.turnPlain(at, c, g, a)
	}
	if !g && !a {
		return shift{}
	}
	n := e.listed[key]
	before := n
	d := int32(1)
	if c == Removed {
		d = -1
	}
	if g {
		n[0] += d
	}
	if a {
		n[1] += d
	}
	if n == ([2]int32{}) {
		delete(e.listed, key)
	} else {
		e.listed[key] = n
	}
	other := e.twins(at, key)
	s := shift{
		gpu: g && (before[0] == 0 || n[0] == 0) && other&visGPU == 0,
		any: a && (before[1] == 0 || n[1] == 0) && other&visAny == 0,
	}
	e.reckon(key, c, s)
	return s
}

// turnPlain is turn for a block that shows its own key alone.
func (e *Engine) turnPlain(at uint32, c Change, g, a bool) shift {
	if !g && !a {
		return shift{}
	}
	key, other := e.blocks[at].key, flags(0)
	if e.blocks[at].flags&twin != 0 {
		other = e.twins(at, key)
	}
	if len(e.listed) != 0 {
		n := e.listed[key]
		if n[0] != 0 {
			other |= visGPU
		}
		if n[1] != 0 {
			other |= visAny
		}
	}
	s := shift{gpu: g && other&visGPU == 0, any: a && other&visAny == 0}
	e.reckon(key, c, s)
	return s
}

// twins says in which sets another block shows this key as its own.
func (e *Engine) twins(at uint32, key uint64) (f flags) {
	for n, slot := e.keys.find(e.blocks, key, -1); n != 0; n, slot = e.keys.find(e.blocks, key, slot) {
		if n != at && e.blocks[n].flags&plain != 0 {
			f |= e.blocks[n].flags & (visGPU | visAny)
		}
	}
	return f
}

// reckon keeps counts and digest of the visible sets.
func (e *Engine) reckon(key uint64, c Change, s shift) {
	n := 1
	if c == Removed {
		n = -1
	}
	if s.gpu {
		e.shownGPU += n
		e.digest += uint64(n) * digestGPU(key)
	}
	if s.any {
		e.shownAny += n
		e.digest += uint64(n) * digestAny(key)
	}
}

// A digest is the sum of one term a key and set: SplitMix64's finaliser, so that neither order nor cancelling
// changes hide a difference.
func digestGPU(key uint64) uint64 { return finish(key + 0x9e3779b97f4a7c15) }
func digestAny(key uint64) uint64 { return finish(key ^ 0xd1b54a32d192ed03) }

func finish(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
