package prefix

import "github.com/warmpath/warmpath/libs/kvevent"

func (e *Engine) remove(ev *kvevent.Event, o *output) {
	p, known, ok := e.placeOf(ev)
	if !ok {
		return
	}
	for i, h := range ev.Hashes {
		e.ahead(ev.Hashes[i:])
		if known {
			if !e.take(h, p, o) {
				e.stats.UnknownRemovals++
			}
			continue
		}
		for t := CPU; t < tiers; t++ { // a tier of no known name: it may be any of these
			for e.take(h, place{t, p.group}, o) {
			}
		}
	}
}

// take removes one copy of an engine hash, if there is one.
func (e *Engine) take(hash uint64, p place, o *output) bool {
	if at, _ := e.names.find(e.blocks, hash, -1); at != 0 && e.count(at, p) != 0 {
		e.drop(at, p, o)
		return true
	}
	f := foreign{hash, p}
	n := e.others[f]
	if n == 0 {
		return false
	}
	if n == 1 {
		delete(e.others, f)
	} else {
		e.others[f] = n - 1
	}
	e.tally(p.tier, -1)
	e.evicted = e.evicted || p.tier == GPU
	o.emit(&entry{copy: Removed, place: p, named: true, hash: hash})
	return true
}

// drop counts one copy less of a block and hides what is no longer visible.
func (e *Engine) drop(at uint32, p place, o *output) {
	e.setCount(at, p, e.count(at, p)-1)
	e.tally(p.tier, -1)
	e.evicted = e.evicted || p.tier == GPU
	b := &e.blocks[at]
	b.flags = b.flags&^(heldGPU|heldAny) | e.held(at)
	t := entry{copy: Removed, place: p, named: true, hash: b.hash}
	if b.flags&keyed != 0 {
		t.hasKey, t.key, t.named = true, b.key, e.ambiguous(at)
		t.split = b.flags&plain == 0 || int(b.end-e.start(at)) != e.o.BlockSize
	}
	e.sink(at, &t, o)
	if !e.hasCopies(at) {
		e.holding--
		e.release(at)
	}
}

// ambiguous reports whether another block has the same key.
func (e *Engine) ambiguous(at uint32) bool {
	if e.blocks[at].flags&twin == 0 {
		return false
	}
	key := e.blocks[at].key
	for n, slot := e.keys.find(e.blocks, key, -1); n != 0; n, slot = e.keys.find(e.blocks, key, slot) {
		if n != at {
			return true
		}
	}
	return false
}

// clear removes every gpu copy, as one run; what other tiers still hold is shown again after it.
func (e *Engine) clear(o *output) {
	if !o.mute {
		o.runs = append(o.runs, Run{Clear: true})
	}
	e.overfull, e.evicted = false, true
	for f := range e.others {
		if f.tier == GPU {
			delete(e.others, f)
		}
	}
	for c := range e.more {
		if c.tier == GPU {
			delete(e.more, c)
		}
	}
	e.total[GPU] = 0
	clear(e.listed)
	e.shownGPU, e.shownAny, e.digest, e.holding = 0, 0, 0, 0
	e.forEach(func(at uint32) {
		b := &e.blocks[at]
		b.gpu = 0
		b.flags = b.flags&^(heldGPU|heldAny|visGPU|visAny) | e.held(at)
		if e.hasCopies(at) {
			e.holding++
		}
	})
	e.raiseBelow(root, o)
	e.forEach(e.release)
}

// forEach calls do for every block in use, in no order of the tree. do may release blocks.
func (e *Engine) forEach(do func(at uint32)) {
	for at := inner; int(at) < len(e.blocks); at++ {
		if b := &e.blocks[at]; b.prev != 0 { // of a free one it is 0
			do(at)
		}
	}
}
