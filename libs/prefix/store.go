package prefix

import (
	"slices"
	"strings"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// tierOf reads a medium as vLLM and its connectors write it.
func tierOf(medium string) (Tier, bool) {
	switch {
	case medium == "" || strings.EqualFold(medium, "gpu"):
		return GPU, true
	case strings.EqualFold(medium, "cpu"):
		return CPU, true
	case strings.EqualFold(medium, "storage"):
		return Storage, true
	}
	return 0, false
}

// placeOf is where an event's blocks lie; known is false for a medium of no known name.
func (e *Engine) placeOf(ev *kvevent.Event) (p place, known, ok bool) {
	t, known := tierOf(ev.Medium)
	group := 0
	if ev.HasGroup {
		group = ev.Group
	}
	if group < 0 || group > maxGroup {
		e.stats.Malformed++
		return p, known, false
	}
	return place{t, int32(group)}, known, true
}

// indexed reports whether blocks of a group can make a prefix hit by themselves: full attention in its forms. Without
// a kind the group speaks for itself only where it is the sole one.
func (e *Engine) indexed(ev *kvevent.Event, group int32, o *output) bool {
	seen := slices.Contains(e.groups, group)
	switch ev.SpecKind {
	case "full_attention", "mla_attention", "sink_full_attention":
		return seen || len(e.groups) < maxGroups
	case "":
		if seen || group == 0 && len(e.groups) == 0 {
			return true
		}
		if group > 0 && ev.BlockSize > 0 {
			e.lackKind(group, o)
		}
	}
	return false
}

// lackKind notes, and the first time logs, that a group beside others does not say what it is.
func (e *Engine) lackKind(group int32, o *output) {
	if !e.kindless && !o.mute {
		o.runs = append(o.runs, kindlessRun(int(group)))
	}
	e.kindless = true
}

func kindlessRun(group int) Run { return Run{Group: group, Split: true} }

// see notes that a group is indexed: what it does not hold is no longer held.
func (e *Engine) see(group int32, o *output) {
	if slices.Contains(e.groups, group) {
		return
	}
	e.groups = append(e.groups, group)
	for at := inner; int(at) < len(e.blocks); at++ {
		b := &e.blocks[at]
		b.flags = b.flags&^(heldGPU|heldAny) | e.held(at)
	}
	e.sink(root, nil, o)
}

// A storing is a stored event on its way through the engine.
type storing struct {
	ev     *kvevent.Event
	place  place
	opaque bool   // it says nothing but hashes: what they are must be known from elsewhere
	join   bool   // its blocks can be joined to requests, as far as the event as a whole can tell
	prev   uint32 // block before the next one
	known  bool   // prev is meant; else it is the root's number
	lost   bool   // the block before the next one is counted only
	parent uint64 // its engine hash; unless prev is the root
	hashed hashed
}

func (e *Engine) store(ev *kvevent.Event, o *output) {
	p, known, ok := e.placeOf(ev)
	switch {
	case !ok:
		return
	case !known:
		e.stats.UnknownMedium += uint64(len(ev.Hashes))
		return
	case !e.indexed(ev, p.group, o):
		e.stats.OtherGroups += uint64(len(ev.Hashes))
		for _, h := range ev.Hashes {
			e.addForeign(foreign{h, p}, o)
		}
		return
	}
	s := storing{ev: ev, place: p, join: e.joinable(ev), known: true, parent: ev.Parent}
	s.opaque = ev.BlockSize == 0 && len(ev.Tokens) == 0 || e.o.Multimodal && !ev.HasExtra && p.tier != GPU
	if ev.HasParent {
		s.prev, _ = e.names.find(e.blocks, ev.Parent, -1)
		s.known = s.prev != 0
		s.lost = !s.known && e.others[foreign{ev.Parent, p}] != 0
	}
	for i, h := range ev.Hashes {
		e.ahead(ev.Hashes[i:])
		if i == s.hashed.to {
			e.hashAhead(&s, i)
		}
		at, waits := e.storeOne(&s, i, h, o)
		if at != 0 {
			e.add(at, p, o)
			if !waits {
				e.resolve(at, o)
			}
		}
		s.prev, s.known, s.parent = at, at != 0, h
	}
}

// storeOne finds or makes the block of one hash of the event; 0 means that it is counted only, or not at all.
func (e *Engine) storeOne(s *storing, i int, hash uint64, o *output) (at uint32, waits bool) {
	at, _ = e.names.find(e.blocks, hash, -1)
	if at != 0 && e.blocks[at].flags&keyed != 0 {
		s.lost = false
		return at, true
	}
	if s.opaque {
		if at == 0 && e.mayKeep(1) {
			at = e.alloc(hash, orphans)
		}
		return at, true
	}
	if s.lost || !s.join || !e.fitsAfter(s.prev, s.ev.BlockSize) || !e.extras.read(s.ev, i) {
		if s.lost = at == 0; s.lost {
			e.stats.Unjoinable++
			e.addForeign(foreign{hash, s.place}, o)
		}
		return at, true
	}
	size := s.ev.BlockSize
	tokens := s.ev.Tokens[i*size : (i+1)*size]
	if s.known && e.blocks[s.prev].flags&keyed != 0 {
		if at == 0 {
			if !e.mayKeep(1) {
				return 0, true
			}
			at = e.alloc(hash, s.prev)
		}
		if s.prev == root {
			e.setRoot(s.ev.LoRAName, e.extras.salt)
		}
		if states := s.hashed.of(i, e.stateAfter(s.prev), &e.extras); states != nil {
			e.nameByStates(at, s.prev, size, states)
		} else {
			e.nameByTokens(at, s.prev, tokens, &e.extras)
		}
		return at, false
	}
	return e.await(s, at, hash, tokens), true
}

func (e *Engine) mayKeep(n int) bool {
	if e.room(n) {
		return true
	}
	e.stats.Overflow++
	return false
}

// add counts one more copy of a block and shows what becomes visible by it.
func (e *Engine) add(at uint32, p place, o *output) {
	e.see(p.group, o)
	n := e.count(at, p)
	if n == maxCopies {
		e.stats.Overflow++
		return
	}
	if !e.hasCopies(at) {
		e.holding++
	}
	e.setCount(at, p, n+1)
	e.tally(p.tier, 1)
	b := &e.blocks[at]
	b.flags |= e.held(at)
	t := e.describe(at)
	t.copy, t.place = Added, p
	e.raise(at, &t, o)
}

// describe is the entry that names a block with its parent.
func (e *Engine) describe(at uint32) entry {
	b := &e.blocks[at]
	t := entry{named: true, hash: b.hash, hasParent: b.parent >= inner, parent: e.blocks[b.parent].hash}
	if b.flags&keyed != 0 {
		t.hasKey, t.key, t.size = true, b.key, int(b.end-e.start(at))
		t.split = b.flags&plain == 0 || t.size != e.o.BlockSize
	}
	return t
}

// addForeign counts one more copy of a block that is counted only.
func (e *Engine) addForeign(f foreign, o *output) {
	n := e.others[f]
	if n == maxCopies || n == 0 && !e.mayKeep(1) {
		return
	}
	e.others[f] = n + 1
	e.tally(f.tier, 1)
	o.emit(&entry{copy: Added, place: f.place, named: true, hash: f.hash, split: true})
}
