package prefix

import "math/bits"

// A finder finds blocks by engine hash or by key; several blocks may have one key. Open addressing, linear probing,
// backward-shift deletion; it grows by half. A slot is a block's position, four bits of its word's hash, and four of
// how far it lies from where the word belongs: so other blocks are rarely looked at. 0 is an empty slot.
type finder struct {
	slots []uint32
	used  int
	byKey bool
}

const (
	maxBlocks = 1 << 24
	position  = maxBlocks - 1
	away      = 24 + 4 // where the bits of the distance begin
	far       = 15     // so far or farther
)

func (f *finder) word(b *block) uint64 {
	if f.byKey {
		return b.key
	}
	return b.hash
}

// scatter spreads keys and engine hashes, which may be anything, over 64 bits.
func scatter(word uint64) uint64 {
	word ^= word >> 32
	word *= 0x9e3779b97f4a7c15
	return word ^ word>>29
}

// home is where a word belongs, and the bits of its hash that its slot has.
func (f *finder) home(word uint64) (slot int, tag uint32) {
	h := scatter(word)
	hi, _ := bits.Mul64(h, uint64(len(f.slots)))
	return int(hi), uint32(h&15) << 24
}

func (f *finder) next(slot int) int {
	if slot++; slot < len(f.slots) {
		return slot
	}
	return 0
}

// from is how far it is from one slot to another.
func (f *finder) from(a, b int) int {
	if b < a {
		b += len(f.slots)
	}
	return b - a
}

// find returns the first block with this word after the slot of the one before, or 0. The first call passes -1.
func (f *finder) find(blocks []block, word uint64, after int) (at uint32, slot int) {
	if f.used == 0 {
		return 0, -1
	}
	home, tag := f.home(word)
	slot = home
	if after >= 0 {
		slot = f.next(after)
	}
	for d := f.from(home, slot); f.slots[slot] != 0; d++ {
		s := f.slots[slot]
		if s&^position == tag|uint32(min(d, far))<<away && f.word(&blocks[s&position]) == word {
			return s & position, slot
		}
		slot = f.next(slot)
	}
	return 0, -1
}

// put adds a block.
func (f *finder) put(blocks []block, at uint32) {
	if f.used >= len(f.slots)*3/4 {
		old := f.slots
		f.slots = make([]uint32, max(16, len(old)+len(old)/2))
		for _, s := range old {
			if s != 0 {
				f.insert(blocks, s&position)
			}
		}
	}
	f.insert(blocks, at)
	f.used++
}

func (f *finder) insert(blocks []block, at uint32) {
	slot, tag := f.home(f.word(&blocks[at]))
	d := 0
	for ; f.slots[slot] != 0; d++ {
		slot = f.next(slot)
	}
	f.slots[slot] = at | tag | uint32(min(d, far))<<away
}

// cut takes a block out, before its word changes.
func (f *finder) cut(blocks []block, at uint32) {
	hole, _ := f.home(f.word(&blocks[at]))
	for f.slots[hole]&position != at {
		hole = f.next(hole)
	}
	back := 0 // from slot i to the hole
	for i := f.next(hole); f.slots[i] != 0; i = f.next(i) {
		back++
		s := f.slots[i]
		d := int(s >> away)
		if d == far {
			home, _ := f.home(f.word(&blocks[s&position]))
			d = f.from(home, i)
		}
		if d >= back {
			f.slots[hole] = s&(1<<away-1) | uint32(min(d-back, far))<<away
			hole, back = i, 0
		}
	}
	f.slots[hole] = 0
	f.used--
}

// guess returns what find most likely returns, without a look at any block.
func (f *finder) guess(word uint64) uint32 {
	if f.used == 0 {
		return 0
	}
	slot, tag := f.home(word)
	for d := uint32(0); d < far; d++ {
		switch s := f.slots[slot]; {
		case s == 0:
			return 0
		case s&^position == tag|d<<away:
			return s & position
		}
		slot = f.next(slot)
	}
	return 0
}
