package prefix

// Restore folds a logged run: an Engine that is given all runs of another, or a snapshot and all later ones, holds
// what that one holds, but for the tokens of waiting blocks, which get no key until they are announced again. A run
// that contradicts what came before is counted and passed over from there.
func (e *Engine) Restore(r *Run) {
	o := output{mute: true}
	p := place{r.Tier, int32(r.Group)}
	ok := r.Tier < tiers && r.Group >= 0 && r.Group <= maxGroup && (len(r.Parents) == 0 || r.mayHaveParents())
	switch {
	case !ok:
	case r.Clear:
		e.clear(&o)
	case r.Copy == Removed && len(r.Hashes) > 0:
		for _, h := range r.Hashes {
			ok = e.take(h, p, &o) && ok
		}
	case r.Copy == Removed:
		for _, key := range r.Keys {
			ok = e.takeKey(key, p, &o) && ok
		}
	case r.Copy == Added && len(r.Hashes) == 0:
		e.see(p.group, &o)
	case len(r.Hashes) == 0: // the sets follow from the copies
		if r.Split && len(r.Keys) == 0 {
			e.lackKind(p.group, &o)
		}
	case len(r.Keys) == 0:
		ok = r.Copy == Added && e.restoreUnkeyed(r, p, &o)
	default:
		ok = len(r.Keys) == len(r.Hashes) && e.restoreKeyed(r, p, &o)
	}
	if !ok { // or no room
		e.stats.Malformed++
	}
	e.cut = e.cut || !e.room(1)
}

// mayHaveParents reports whether a run is one whose blocks have Parents, one each.
func (r *Run) mayHaveParents() bool {
	return !r.Clear && r.Copy != Removed && !r.HasParent && len(r.Parents) == len(r.Hashes) && len(r.Keys) > 0
}

// parentOf returns the engine hash before block i, if the run names it apart from its blocks.
func (r *Run) parentOf(i int) (hash uint64, ok bool) {
	if len(r.Parents) > 0 {
		return r.Parents[i], true
	}
	return r.Parent, r.HasParent && i == 0
}

// fitsMore reports whether blocks can be numbered; how many may be kept was decided by whoever wrote the log.
func (e *Engine) fitsMore() bool { return len(e.blocks) < maxBlocks-2 }

// takeKey removes one copy of the block that has this key.
func (e *Engine) takeKey(key uint64, p place, o *output) bool {
	for at, slot := e.keys.find(e.blocks, key, -1); at != 0; at, slot = e.keys.find(e.blocks, key, slot) {
		if e.count(at, p) != 0 {
			e.drop(at, p, o)
			return true
		}
	}
	return false
}

func (e *Engine) restoreUnkeyed(r *Run, p place, o *output) bool {
	if r.Split {
		for _, h := range r.Hashes {
			e.addForeign(foreign{h, p}, o)
		}
		return true
	}
	parent := r.Parent
	for _, h := range r.Hashes {
		if !e.fitsMore() {
			return false
		}
		at, _ := e.names.find(e.blocks, h, -1)
		switch {
		case r.HasParent && (at == 0 || e.blocks[at].flags&keyed == 0):
			at = e.under(at, h, parent)
		case at == 0:
			at = e.alloc(h, orphans)
		}
		e.add(at, p, o)
		parent = h
	}
	return true
}

func (e *Engine) restoreKeyed(r *Run, p place, o *output) bool {
	prev, size, shown := root, r.BlockSize, r.Shown
	if size <= 0 {
		size = e.o.BlockSize
	}
	for i, h := range r.Hashes {
		if parent, ok := r.parentOf(i); ok {
			if prev, _ = e.names.find(e.blocks, parent, -1); prev == 0 {
				return false
			}
		}
		if !e.fitsMore() {
			return false
		}
		at, _ := e.names.find(e.blocks, h, -1)
		if at == 0 || e.blocks[at].flags&keyed == 0 {
			over := &e.blocks[prev]
			end := int64(over.end) + int64(size)
			if over.flags&keyed == 0 || end > maxEnd || e.o.BlockSize <= 0 {
				return false
			}
			n := int(end)/e.o.BlockSize - int(over.end)/e.o.BlockSize
			list := r.Keys[i : i+1]
			if r.Split {
				if n > len(shown) {
					return false
				}
				list = shown[:n]
			} else if n != 1 {
				return false
			}
			if at == 0 {
				at = e.alloc(h, prev)
			}
			e.name(at, prev, r.Keys[i], size, list)
		}
		if r.Split {
			shown = shown[min(len(shown), int(e.boundaries(at))):]
		}
		if r.Copy == Added {
			e.add(at, p, o)
		} else {
			e.rise(at, nil, o)
		}
		prev = at
	}
	return true
}
