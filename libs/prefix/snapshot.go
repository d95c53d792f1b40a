package prefix

// Snapshot yields the full state as runs, parents first, copies repeated, until yield returns false. Given to Restore
// of an Engine that holds nothing, or to Index.Replace, they rebuild it; but waiting blocks come without tokens. A run
// that clears comes first where gpu copies were removed in this life: it tells those that hold nothing just that. That
// more copies were announced once than the engine has blocks is told only while it is so.
func (e *Engine) Snapshot(yield func(Run) bool) {
	w := snapshot{e: e, yield: yield, gpu: map[uint64]bool{}, any: map[uint64]bool{}}
	if e.evicted {
		w.o.runs = append(w.o.runs, Run{Clear: true})
	}
	if e.kindless {
		w.o.runs = append(w.o.runs, kindlessRun(0))
	}
	for _, g := range e.groups {
		w.o.runs = append(w.o.runs, Run{Copy: Added, Group: int(g)})
	}
	for _, top := range []uint32{root, orphans} {
		if !e.preorder(top, w.first) {
			return
		}
	}
	for _, top := range []uint32{root, orphans} {
		if !e.preorder(top, w.further) {
			return
		}
	}
	for f, n := range e.others {
		for range n {
			w.o.emit(&entry{copy: Added, place: f.place, named: true, hash: f.hash, split: true})
		}
		if !w.flush(1) {
			return
		}
	}
	w.flush(0)
}

// A snapshot is one on its way out.
type snapshot struct {
	e        *Engine
	o        output
	yield    func(Run) bool
	gpu, any map[uint64]bool // keys shown so far that several blocks show
}

// flush yields all runs but the last keep ones, which may still grow.
func (w *snapshot) flush(keep int) bool {
	n := len(w.o.runs) - keep
	for i := 0; i < n; i++ {
		if !w.yield(w.o.runs[i]) {
			return false
		}
	}
	if n > 0 {
		w.o.runs = append(w.o.runs[:0], w.o.runs[n:]...)
	}
	return true
}

// first writes a block with its first copy, if any, and what it shows.
func (w *snapshot) first(at uint32) bool {
	e := w.e
	t := e.describe(at)
	for _, p := range e.places {
		if e.count(at, p) != 0 {
			t.copy, t.place = Added, p
			break
		}
	}
	b := &e.blocks[at]
	if !t.hasKey {
		if t.copy == Added { // else it is named by its children
			w.o.emit(&t)
		}
		return w.flush(1)
	}
	keys := e.shows(at)
	g, a, alike := b.flags&visGPU != 0, b.flags&visAny != 0, true
	shifts := e.shifts[:0]
	for _, key := range keys {
		s := shift{g && w.fresh(w.gpu, key, visGPU, at), a && w.fresh(w.any, key, visAny, at)}
		alike = alike && s == shift{g, a}
		shifts = append(shifts, s)
	}
	e.shifts = shifts
	if t.split {
		t.shown = keys
	}
	if alike || !t.split {
		if len(shifts) == 1 && !t.split {
			g, a = shifts[0].gpu, shifts[0].any
		}
		t.gpu, t.any = change(g, Added), change(a, Added)
		w.o.emit(&t)
		return w.flush(1)
	}
	w.o.emit(&t)
	for i, s := range shifts {
		if s.gpu || s.any {
			w.o.emit(&entry{gpu: change(s.gpu, Added), any: change(s.any, Added), hasKey: true, key: keys[i]})
		}
	}
	return w.flush(1)
}

// fresh reports whether a visible block's key has not been shown yet.
func (w *snapshot) fresh(seen map[uint64]bool, key uint64, set flags, at uint32) bool {
	n := w.e.listed[key]
	listed := n[0]
	if set == visAny {
		listed = n[1]
	}
	if w.e.blocks[at].flags&plain == 0 {
		listed-- // itself
	}
	if listed == 0 && w.e.twins(at, key)&set == 0 {
		return true
	}
	fresh := !seen[key]
	seen[key] = true
	return fresh
}

// further writes the copies of a block that first has not.
func (w *snapshot) further(at uint32) bool {
	e := w.e
	t := e.describe(at)
	t.copy = Added
	if t.split && t.hasKey {
		t.shown = e.shows(at)
	}
	first := true
	for _, p := range e.places {
		n := e.count(at, p)
		if n > 0 && first {
			n, first = n-1, false
		}
		for range n {
			t.place = p
			w.o.emit(&t)
		}
	}
	return w.flush(1)
}
