package prefix

import "math/bits"

// A row is a key and the set of its holders: a bitmask of 64 holders, or in a wide segment the number of a shared
// set. An empty set is an empty slot.
type row struct {
	key uint64
	set uint64
}

// A segment is an open-addressing table that grows alone, by half, so that neither time nor memory grows at once.
// Linear probing, backward-shift deletion, no pointers in it.
type segment struct {
	rows []row
	used int
	wide bool
}

const segments = 1 << 10

// spread scatters a key over segments and, by the rest of the word, over a segment's slots.
func spread(key uint64) (seg int, rest uint64) {
	h := scatter(key)
	return int(h >> 54), h << 10
}

func (s *segment) home(rest uint64) int {
	hi, _ := bits.Mul64(rest, uint64(len(s.rows)))
	return int(hi)
}

// get returns the set of a key, 0 for none.
func (s *segment) get(key, rest uint64) uint64 {
	if s.used == 0 {
		return 0
	}
	rows := s.rows
	i := s.home(rest)
	for i < len(rows) {
		r := &rows[i]
		if r.key == key || r.set == 0 {
			return r.set
		}
		if i++; i == len(rows) {
			i = 0
		}
	}
	return 0
}

// slot returns where a key is or would be. There is always an empty slot.
func (s *segment) slot(key, rest uint64) int {
	i := s.home(rest)
	for s.rows[i].set != 0 && s.rows[i].key != key {
		if i++; i == len(s.rows) {
			i = 0
		}
	}
	return i
}

// reserve makes room for one more row.
func (s *segment) reserve() {
	if (s.used+1)*5 <= len(s.rows)*4 {
		return
	}
	old := s.rows
	s.rows = make([]row, max(8, len(old)+len(old)/2))
	for _, r := range old {
		if r.set != 0 {
			_, rest := spread(r.key)
			s.rows[s.slot(r.key, rest)] = r
		}
	}
}

// cut empties slot i and moves up what had to probe past it.
func (s *segment) cut(i int) {
	n := len(s.rows)
	hole := i
	for {
		if i++; i == n {
			i = 0
		}
		if s.rows[i].set == 0 {
			break
		}
		_, rest := spread(s.rows[i].key)
		away, back := i-s.home(rest), i-hole
		if away < 0 {
			away += n
		}
		if back < 0 {
			back += n
		}
		if away >= back {
			s.rows[hole], hole = s.rows[i], i
		}
	}
	s.rows[hole] = row{}
	s.used--
}
