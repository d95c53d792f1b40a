package prefix

import (
	"math/bits"
	"sync/atomic"
)

// A row is a key and the set of its holders: a bitmask of 64 holders, or in a table with shared sets the number of
// one. Readers load both words atomically, the key first. A table is written in place, and only by the writer:
//
//   - a row appears set first, key second;
//   - a removed row leaves its set and becomes a tombstone, which matches no key. Whoever matched the key before may
//     load the set still, so the slot is used again only when all of those are gone.
type row struct {
	key uint64 // see below
	set uint64
}

// The key word of a row is the scattered key without the bits that chose the segment, so its low ten bits are free.
// An empty slot is 0, or a tombstone that no search needs to go past: one that had an empty slot behind it.
const (
	occupied uint64 = 1 << 0
	passed   uint64 = 1 << 1 // a tombstone, and searches go on behind it
	epoch0          = 2      // a tombstone's epoch, mod 256, begins at this bit
	buried   uint64 = 1 << 10
)

func tombstone(epoch uint64) uint64 { return buried | epoch&0xff<<epoch0 }

// usable reports whether a slot with this word, which is not occupied, may take a key. An epoch that is 256 ago looks
// like now; then the slot waits longer than it must.
func usable(word, now uint64) bool { return word == 0 || past(0, (now-word>>epoch0)&0xff) }

// A table is an open-addressing hash table with linear probing and no pointers in its rows. At least a fifth of the
// slots are empty, so that searches end.
type table struct {
	rows []row
	sets *sets // if rows name shared sets
}

// segments is how many tables there are. Each grows alone, by half, so that neither time nor memory grows at once.
const segments = 1 << 10

// spread scatters a key over the segments and, by its word in a row, over the slots of a table.
func spread(key uint64) (seg int, word uint64) {
	h := scatter(key)
	return int(h >> 54), h<<10 | occupied
}

func home(word uint64, slots int) int {
	hi, _ := bits.Mul64(word, uint64(slots))
	return int(hi)
}

// get returns the set of a key, 0 for none. For readers.
func (t *table) get(word uint64) uint64 {
	rows := t.rows
	for i := home(word, len(rows)); i < len(rows); {
		r := &rows[i]
		k := atomic.LoadUint64(&r.key)
		if k == word {
			pause()
			return atomic.LoadUint64(&r.set)
		}
		if k&(occupied|passed) == 0 {
			break
		}
		if i++; i == len(rows) {
			i = 0
		}
	}
	return 0
}

// touch begins to fetch where a key is or will be.
func (t *table) touch(word uint64) {
	if i := home(word, len(t.rows)); i < len(t.rows) {
		_ = atomic.LoadUint64(&t.rows[i].key)
	}
}

// A segment is what the writer knows of a table.
type segment struct {
	*table
	used   int    // rows
	passed int    // tombstones with passed
	epoch  uint64 // of the last removal
	young  int    // slots emptied in that epoch
	old    int    // and in the one before it
}

// find returns the slot of a key, or -1. For the writer.
func (s *segment) find(word uint64) int {
	for i := home(word, len(s.rows)); ; {
		k := s.rows[i].key
		if k == word {
			return i
		}
		if k&(occupied|passed) == 0 {
			return -1
		}
		if i++; i == len(s.rows) {
			i = 0
		}
	}
}

// put adds a key that is not there to a table that has room.
func (s *segment) put(word, set, now uint64) {
	i := home(word, len(s.rows))
	for {
		k := s.rows[i].key
		if k&occupied == 0 {
			if usable(k, now) {
				s.passed -= int(k & passed / passed)
				break
			}
			if k&passed == 0 { // searches for this key must go on behind it
				atomic.StoreUint64(&s.rows[i].key, k|passed)
				s.passed++
			}
		}
		if i++; i == len(s.rows) {
			i = 0
		}
	}
	atomic.StoreUint64(&s.rows[i].set, set)
	atomic.StoreUint64(&s.rows[i].key, word)
	s.used++
}

// cut removes the row in slot i. Where an empty slot follows, no search needs to go past the tombstone, nor past those
// just before it.
func (s *segment) cut(i int, now uint64) {
	s.age(now)
	s.young++
	s.used--
	k := tombstone(now)
	behind := i + 1
	if behind == len(s.rows) {
		behind = 0
	}
	if s.rows[behind].key&(occupied|passed) != 0 {
		atomic.StoreUint64(&s.rows[i].key, k|passed)
		s.passed++
		return
	}
	for {
		atomic.StoreUint64(&s.rows[i].key, k)
		if i--; i < 0 {
			i = len(s.rows) - 1
		}
		k = s.rows[i].key
		if k&(occupied|passed) != passed {
			return
		}
		k &^= passed
		s.passed--
	}
}

func (s *segment) age(now uint64) {
	switch now - s.epoch {
	case 0:
		return
	case 1:
		s.old = s.young
	default:
		s.old = 0
	}
	s.young, s.epoch = 0, now
}

// full reports whether the table must be made anew before it takes one more row.
func (s *segment) full(now uint64) bool {
	s.age(now)
	return (s.used+1+s.passed+s.young+s.old)*5 > len(s.rows)*4
}

// room is how many slots a new table is to have, with one more row: of the same size where the old one is full of
// tombstones.
func (s *segment) room() int {
	n, used := len(s.rows), s.used+1
	switch {
	case used*20 > n*13:
		n += n / 2
	case used*4 < n:
		n = used + used/2
	}
	return max(8, n)
}

// rebuild makes a table with other slots, and its rows' sets as named by turn. The caller publishes it.
func (s *segment) rebuild(slots int, sets *sets, turn func(set uint64) uint64) {
	rows := make([]row, slots)
	for i := range s.rows {
		r := s.rows[i]
		if r.key&occupied == 0 {
			continue
		}
		if turn != nil {
			r.set = turn(r.set)
		}
		at := home(r.key, slots)
		for rows[at].key != 0 {
			if at++; at == slots {
				at = 0
			}
		}
		rows[at] = r
	}
	s.table = &table{rows: rows, sets: sets}
	s.passed, s.young, s.old = 0, 0, 0
}
