package prefix

import "slices"

// A writing is the change of one row.
type writing struct {
	x      *Index
	s      *segment
	key    uint64
	rest   uint64
	before uint64 // set as the row has it
	set    uint64
}

// write begins to change the row of a key.
func (x *Index) write(key uint64) writing {
	seg, rest := spread(key)
	s := &x.segments[seg]
	if x.sets != nil && !s.wide {
		x.widenSegment(s)
	}
	set := s.get(key, rest)
	return writing{x: x, s: s, key: key, rest: rest, before: set, set: set}
}

func (w *writing) has(h holder) bool {
	if !w.s.wide {
		return h < 64 && w.set>>h&1 != 0
	}
	return int(h)/64 < w.x.sets.stride && w.x.sets.has(w.set, h)
}

// turn sets or clears one holder's bit. The row itself changes in done, at once.
func (w *writing) turn(h holder, on bool) {
	if w.has(h) == on {
		return
	}
	if w.s.wide {
		w.set = w.x.sets.change(w.set, h, on)
	} else {
		w.set ^= 1 << h
	}
}

// done writes the row.
func (w *writing) done() {
	switch {
	case w.set == w.before:
	case w.before == 0:
		w.s.reserve()
		w.s.rows[w.s.slot(w.key, w.rest)] = row{w.key, w.set}
		w.s.used++
		w.x.rows++
	case w.set == 0:
		w.s.cut(w.s.slot(w.key, w.rest))
		w.x.rows--
	default:
		w.s.rows[w.s.slot(w.key, w.rest)].set = w.set
	}
}

// widenSegment turns a segment's one-word sets into shared ones. Segments are turned one by one as they are written.
func (x *Index) widenSegment(s *segment) {
	for i := range s.rows {
		if r := &s.rows[i]; r.set != 0 {
			r.set = x.sets.fromMask(r.set)
		}
	}
	s.wide = true
}

// Sweep frees rows of past lives, looking at about max rows, and reports whether none are left. Whoever owns the
// Index calls it now and then; until then rows and holder numbers of past lives are not used again.
func (x *Index) Sweep(max int) (done bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := &x.holders
	for seen := 0; seen < max; {
		if len(h.sweeping) == 0 {
			if len(h.dead) == 0 {
				return true
			}
			h.sweeping, h.dead, x.cursor = h.dead, nil, 0
		}
		s := &x.segments[x.cursor]
		seen += len(s.rows) + 1
		x.sweep(s, h.sweeping)
		if x.cursor++; x.cursor == segments {
			h.free = append(h.free, h.sweeping...)
			h.sweeping = nil
		}
	}
	return len(h.sweeping) == 0 && len(h.dead) == 0
}

// sweep takes dead holders from all rows of a segment.
func (x *Index) sweep(s *segment, dead []holder) {
	if s.used == 0 {
		return
	}
	if x.sets != nil && !s.wide {
		x.widenSegment(s)
	}
	var mask uint64 // only meant where all holders are in one word
	for _, d := range dead {
		mask |= 1 << d
	}
	if !s.wide && !slices.ContainsFunc(s.rows, func(r row) bool { return r.set&mask != 0 }) {
		return
	}
	kept := s.rows
	s.rows, s.used = make([]row, len(kept)), 0
	for _, r := range kept {
		if r.set == 0 {
			continue
		}
		if !s.wide {
			r.set &^= mask
		} else {
			r.set = x.sets.without(r.set, dead)
		}
		if r.set == 0 {
			x.rows--
			continue
		}
		_, rest := spread(r.key)
		s.rows[s.slot(r.key, rest)] = r
		s.used++
	}
	s.shrink()
}

// without returns the set that a row has after these holders have left it.
func (s *sets) without(n uint64, dead []holder) uint64 {
	if !slices.ContainsFunc(dead, func(h holder) bool { return s.has(n, h) }) {
		return n
	}
	for _, h := range dead {
		if s.has(n, h) {
			n = s.change(n, h, false)
		}
	}
	return n
}

// shrink gives memory back where a segment has become nearly empty.
func (s *segment) shrink() {
	if len(s.rows) < 32 || s.used*4 > len(s.rows) {
		return
	}
	old := s.rows
	s.rows = make([]row, s.used*3/2+1)
	for _, r := range old {
		if r.set != 0 {
			_, rest := spread(r.key)
			s.rows[s.slot(r.key, rest)] = r
		}
	}
}
