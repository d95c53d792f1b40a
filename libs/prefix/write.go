package prefix

import "sync/atomic"

// A writing is the change of one row.
type writing struct {
	x      *Index
	s      *segment
	seg    int
	word   uint64
	at     int    // the row's slot; -1 if there is none
	before uint64 // set as the row has it
	set    uint64
}

// write begins to change the row of a key.
func (x *Index) write(key uint64) writing {
	seg, word := spread(key)
	s := &x.segments[seg]
	if x.sets != s.sets {
		x.follow(seg)
	}
	w := writing{x: x, s: s, seg: seg, word: word, at: s.find(word)}
	if w.at >= 0 {
		w.before = s.rows[w.at].set
		w.set = w.before
	}
	return w
}

func (w *writing) has(h holder) bool {
	if w.s.sets == nil {
		return h < 64 && w.set>>h&1 != 0
	}
	return w.s.sets.has(w.set, h)
}

// turn sets or clears one holder's bit. The row itself changes in done, at once.
func (w *writing) turn(h holder, on bool) {
	switch {
	case w.has(h) == on:
	case w.s.sets != nil:
		w.set = w.s.sets.change(w.set, h, on)
		w.x.retired++ // perhaps
	default:
		w.set ^= 1 << h
	}
}

// done writes the row.
func (w *writing) done() {
	x := w.x
	switch {
	case w.set == w.before:
	case w.set == 0:
		w.s.cut(w.at, x.epochs.now.Load())
		x.rows--
		x.retired++
	case w.at >= 0:
		atomic.StoreUint64(&w.s.rows[w.at].set, w.set)
	default:
		now := x.epochs.now.Load()
		if w.s.full(now) {
			x.rebuild(w.seg, w.s.room(), nil)
		}
		w.s.put(w.word, w.set, now)
		x.rows++
	}
}

// rebuild gives a segment a new table, in which sets are named as the Index has them now.
func (x *Index) rebuild(seg, slots int, turn func(set uint64) uint64) {
	s := &x.segments[seg]
	s.rebuild(slots, x.sets, turn)
	x.tables[seg].Store(s.table)
}

// follow turns a segment's one-word sets into shared ones or, when few holders are left, back. Segments are turned
// one by one as they are written.
func (x *Index) follow(seg int) {
	s := &x.segments[seg]
	old := s.sets
	x.rebuild(seg, len(s.rows), func(set uint64) uint64 {
		if old != nil { // all holders that there are by now are in the first word
			set = old.arena.of(set)[0]
		}
		if x.sets == nil {
			return set
		}
		return x.sets.fromMask(set)
	})
}

// few is how many holder numbers must be left for an Index to go back to one-word sets.
const few = 32

// Sweep frees rows of past lives, looking at about max rows, and reports whether none are left. Whoever owns the
// Index calls it now and then; until then rows and holder numbers of past lives are not used again.
func (x *Index) Sweep(max int) (done bool) {
	h := &x.holders
	for seen := 0; seen < max; {
		if len(h.sweeping) == 0 && !x.beginSweep() {
			break
		}
		seen += len(x.segments[x.cursor].rows)
		x.sweep(x.cursor, h.sweeping)
		if x.cursor++; x.cursor == segments {
			h.end()
			if h.numbers <= few {
				x.sets = nil
			}
		}
	}
	x.tellRows()
	return len(h.sweeping) == 0 && len(h.dead) == 0
}

// beginSweep waits for readers no longer than two epochs take when there are none.
func (x *Index) beginSweep() bool {
	x.cursor = 0
	for range 3 {
		if x.holders.begin(x.epochs.now.Load()) {
			return true
		}
		if len(x.holders.dead) == 0 || !x.move() {
			break
		}
	}
	return false
}

// sweep takes dead holders from all rows of a segment.
func (x *Index) sweep(seg int, dead []holder) {
	s := &x.segments[seg]
	if s.used == 0 {
		return
	}
	if x.sets != s.sets {
		x.follow(seg)
	}
	var mask uint64 // only meant where all holders are in one word
	for _, d := range dead {
		mask |= 1 << d
	}
	now := x.epochs.now.Load()
	for i := range s.rows {
		r := &s.rows[i]
		if r.key&occupied == 0 {
			continue
		}
		set := r.set &^ mask
		if s.sets != nil {
			set = s.sets.without(r.set, dead)
		}
		switch set {
		case r.set:
		case 0:
			s.cut(i, now)
			x.rows--
		default:
			atomic.StoreUint64(&r.set, set)
		}
	}
	if (s.passed+s.young+s.old)*8 > len(s.rows) || len(s.rows) >= 32 && s.used*4 < len(s.rows) {
		x.rebuild(seg, s.room(), nil)
	}
}
