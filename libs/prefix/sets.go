package prefix

import (
	"slices"
	"sync/atomic"
)

// sets are the holder sets of an Index with more than 64 holders. Equal sets are stored once and counted; rows name
// them by number, 0 being the empty set. A set that no row names stays where it is, and can be named again, until
// no reader can see its number any more; only then is the number used for another set.
type sets struct {
	shared atomic.Pointer[arena] // for readers, who load it after the row that names a set

	arena arena
	refs  []uint32 // rows that name a set
	gens  []uint32 // +1 each time the number is freed
	state []uint8  // see waits
	free  []uint32
	young []uint32 // sets that no row named, since this epoch
	old   []uint32 // and since the one before
	slots []uint32 // open addressing by content
	used  int
	cache [1 << 12]step
	next  []uint64 // scratch
}

// An arena holds the sets. A set's words never change while a row names it or a reader may know its number.
type arena struct {
	stride int      // words a set
	words  []uint64 // set n is words[n*stride:][:stride]
}

func (a *arena) of(n uint64) []uint64 { return a.words[int(n)*a.stride:][:a.stride:a.stride] }

const (
	waits uint8 = 1 << iota // is in young or old
	again                   // was named and let go again while it waited
)

// A step remembers what a set becomes when a holder's bit changes.
type step struct {
	from, to       uint32
	fromGen, toGen uint32
	bit            uint32 // holder*2, +1 to set; +2 so that a zero step matches nothing
}

func newSets(stride int) *sets {
	s := &sets{refs: make([]uint32, 1), gens: make([]uint32, 1), state: make([]uint8, 1), slots: make([]uint32, 64),
		next: make([]uint64, stride)}
	s.publish(arena{stride, make([]uint64, 16*stride)})
	return s
}

func (s *sets) publish(a arena) {
	s.arena = a
	s.shared.Store(&a)
}

// has reports whether a set holds a holder.
func (s *sets) has(n uint64, h holder) bool {
	return int(h)/64 < s.arena.stride && s.arena.of(n)[h/64]>>(h%64)&1 != 0
}

// widen makes room for holders of more words.
func (s *sets) widen(stride int) {
	if stride <= s.arena.stride {
		return
	}
	a := arena{stride, make([]uint64, len(s.arena.words)/s.arena.stride*stride)}
	for i := range s.refs {
		copy(a.of(uint64(i)), s.arena.of(uint64(i)))
	}
	s.publish(a)
	s.next = make([]uint64, stride)
	s.rehash(len(s.slots))
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
	n := s.number()
	copy(s.arena.of(uint64(n)), s.next)
	s.refs[n] = 1
	s.slots[slot] = n
	if s.used++; s.used > len(s.slots)*3/4 {
		s.rehash(2 * len(s.slots))
	}
	return n
}

// number takes a free number, or a new one.
func (s *sets) number() uint32 {
	if last := len(s.free) - 1; last >= 0 {
		n := s.free[last]
		s.free = s.free[:last]
		return n
	}
	n := len(s.refs)
	s.refs, s.gens, s.state = append(s.refs, 0), append(s.gens, 0), append(s.state, 0)
	if a := s.arena; (n+1)*a.stride > len(a.words) {
		words := make([]uint64, (n+n/2)*a.stride)
		copy(words, a.words)
		s.publish(arena{a.stride, words})
	}
	return uint32(n)
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
	copy(s.next, s.arena.of(n))
	s.next[h/64] &^= 1 << (h % 64)
	if on {
		s.next[h/64] |= 1 << (h % 64)
	}
	to := s.intern()
	*c = step{from: uint32(n), to: to, fromGen: s.gens[n], toGen: s.gens[to], bit: bit}
	s.drop(n)
	return uint64(to)
}

// without returns the set that a row has after these holders have left it.
func (s *sets) without(n uint64, dead []holder) uint64 {
	for _, h := range dead {
		if s.has(n, h) {
			n = s.change(n, h, false)
		}
	}
	return n
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
	if s.state[n] != 0 {
		s.state[n] = waits | again
		return
	}
	s.state[n] = waits
	s.young = append(s.young, uint32(n))
}

// age frees the sets that nobody can see any more, now that an epoch has passed.
func (s *sets) age() {
	ripe := s.old
	s.old, s.young = s.young, ripe[:0]
	for _, n := range ripe {
		switch {
		case s.refs[n] != 0:
			s.state[n] = 0
		case s.state[n]&again != 0:
			s.state[n] = waits
			s.young = append(s.young, n) // overwrites what has been read
		default:
			s.state[n] = 0
			s.bury(n)
		}
	}
}

// bury takes a set out of the table by content and frees its number.
func (s *sets) bury(n uint32) {
	hole := s.find(s.arena.of(uint64(n)))
	mask := len(s.slots) - 1
	for i := (hole + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		home := s.home(s.arena.of(uint64(s.slots[i])))
		if (i-home)&mask >= (i-hole)&mask {
			s.slots[hole], hole = s.slots[i], i
		}
	}
	s.slots[hole] = 0
	s.used--
	s.gens[n]++
	s.free = append(s.free, n)
}

func (s *sets) home(words []uint64) int {
	h := uint64(len(words))
	for _, w := range words {
		h = finish(h ^ w)
	}
	return int(h) & (len(s.slots) - 1)
}

func (s *sets) find(words []uint64) int {
	slot := s.home(words)
	for n := s.slots[slot]; n != 0 && !slices.Equal(s.arena.of(uint64(n)), words); n = s.slots[slot] {
		slot = (slot + 1) & (len(s.slots) - 1)
	}
	return slot
}

// rehash makes the table by content anew.
func (s *sets) rehash(n int) {
	old := s.slots
	s.slots = make([]uint32, n)
	for _, n := range old {
		if n != 0 {
			s.slots[s.find(s.arena.of(uint64(n)))] = n
		}
	}
}
