package prefix

import "slices"

// sets are the holder sets of an Index with more than 64 holders. Equal sets are stored once and counted; rows name
// them by number, 0 being the empty set. No pointers in it but its slices.
type sets struct {
	stride int      // words a set
	words  []uint64 // set n is words[n*stride:][:stride]
	refs   []uint32 // rows that name it
	gens   []uint32 // +1 each time the number is freed
	free   []uint32
	slots  []uint32 // open addressing by content
	used   int
	cache  [1 << 12]step
	next   []uint64 // scratch
}

// A step remembers what a set becomes when a holder's bit changes.
type step struct {
	from, to       uint32
	fromGen, toGen uint32
	bit            uint32 // holder*2, +1 to set; +2 so that a zero step matches nothing
}

func newSets(stride int) *sets {
	return &sets{stride: stride, words: make([]uint64, stride), refs: make([]uint32, 1), gens: make([]uint32, 1),
		slots: make([]uint32, 64), next: make([]uint64, stride)}
}

func (s *sets) of(n uint64) []uint64 { return s.words[int(n)*s.stride:][:s.stride:s.stride] }

// has reports whether a set holds a holder.
func (s *sets) has(n uint64, h holder) bool { return s.of(n)[h/64]>>(h%64)&1 != 0 }

// widen makes room for holders of more words.
func (s *sets) widen(stride int) {
	if stride <= s.stride {
		return
	}
	words := make([]uint64, len(s.refs)*stride)
	for i := range s.refs {
		copy(words[i*stride:], s.of(uint64(i)))
	}
	s.words, s.stride, s.next = words, stride, make([]uint64, stride)
	slots := len(s.slots)
	s.rehash(slots)
}

// intern returns the number of the set in s.next, with one more row that names it.
func (s *sets) intern() uint32 {
	if !slices.ContainsFunc(s.next, func(w uint64) bool { return w != 0 }) {
		return 0
	}
	slot := s.find(s.next)
	if n := s.slots[slot]; n != 0 {
		s.refs[n]++
		return n
	}
	n := uint32(len(s.refs))
	if last := len(s.free) - 1; last >= 0 {
		n, s.free = s.free[last], s.free[:last]
		copy(s.of(uint64(n)), s.next)
		s.refs[n] = 1
	} else {
		s.words = append(s.words, s.next...)
		s.refs, s.gens = append(s.refs, 1), append(s.gens, 0)
	}
	s.slots[slot] = n
	if s.used++; s.used > len(s.slots)*3/4 {
		s.rehash(2 * len(s.slots))
	}
	return n
}

// change returns the set that a row has after a holder's bit has changed, in place of the one that it had.
func (s *sets) change(n uint64, h holder, on bool) uint64 {
	bit := uint32(h)*2 + 2
	if on {
		bit++
	}
	c := &s.cache[(uint32(n)*0x9e3779b1^bit*0x85ebca6b)>>20]
	if c.bit == bit && c.from == uint32(n) && c.fromGen == s.gens[n] && c.toGen == s.gens[c.to] {
		if c.to != 0 {
			s.refs[c.to]++
		}
		s.drop(n)
		return uint64(c.to)
	}
	copy(s.next, s.of(n))
	s.next[h/64] &^= 1 << (h % 64)
	if on {
		s.next[h/64] |= 1 << (h % 64)
	}
	to := s.intern()
	*c = step{from: uint32(n), to: to, fromGen: s.gens[n], toGen: s.gens[to], bit: bit}
	s.drop(n)
	return uint64(to)
}

// fromMask interns an inline set.
func (s *sets) fromMask(mask uint64) uint64 {
	clear(s.next)
	s.next[0] = mask
	return uint64(s.intern())
}

// drop takes back one row's naming of a set.
func (s *sets) drop(n uint64) {
	if n == 0 {
		return
	}
	if s.refs[n]--; s.refs[n] != 0 {
		return
	}
	hole := s.find(s.of(n))
	mask := len(s.slots) - 1
	for i := (hole + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		home := s.home(s.of(uint64(s.slots[i])))
		if (i-home)&mask >= (i-hole)&mask {
			s.slots[hole], hole = s.slots[i], i
		}
	}
	s.slots[hole] = 0
	s.used--
	s.gens[n]++
	s.free = append(s.free, uint32(n))
}

func (s *sets) home(words []uint64) int {
	h := uint64(len(words))
	for _, w := range words {
		h = finish(h ^ w)
	}
	if len(words) == 0 {
		return 0
	}
	return int(h) & (len(s.slots) - 1)
}

func (s *sets) find(words []uint64) int {
	slot := s.home(words)
	for n := s.slots[slot]; n != 0 && !slices.Equal(s.of(uint64(n)), words); n = s.slots[slot] {
		slot = (slot + 1) & (len(s.slots) - 1)
	}
	return slot
}

func (s *sets) rehash(n int) {
	s.slots = make([]uint32, n)
	for i := 1; i < len(s.refs); i++ {
		if s.refs[i] != 0 {
			s.slots[s.find(s.of(uint64(i)))] = uint32(i)
		}
	}
}
