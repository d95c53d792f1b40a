package prefix

// A finder finds blocks by engine hash or by key; several blocks may have one key. Open addressing, linear probing,
// backward-shift deletion. A slot is a block's position and six bits of its word's hash, so that other blocks are
// rarely looked at; 0 is an empty slot.
type finder struct {
	slots []uint32
	used  int
	byKey bool
}

const (
	maxBlocks = 1 << 26
	position  = maxBlocks - 1
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

// home is where a word belongs, and the bits that its slot has beside the position.
func (f *finder) home(word uint64) (slot int, tag uint32) {
	h := scatter(word)
	return int(h) & (len(f.slots) - 1), uint32(h>>58) << 26
}

// find returns the first block with this word after the slot of the one before, or 0. The first call passes -1.
func (f *finder) find(blocks []block, word uint64, after int) (at uint32, slot int) {
	if f.used == 0 {
		return 0, -1
	}
	slot, tag := f.home(word)
	if after >= 0 {
		slot = (after + 1) & (len(f.slots) - 1)
	}
	for ; f.slots[slot] != 0; slot = (slot + 1) & (len(f.slots) - 1) {
		if s := f.slots[slot]; s&^position == tag && f.word(&blocks[s&position]) == word {
			return s & position, slot
		}
	}
	return 0, -1
}

func (f *finder) put(blocks []block, at uint32) {
	if f.used >= len(f.slots)*7/8 {
		old := f.slots
		f.slots = make([]uint32, max(16, 2*len(old)))
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
	for f.slots[slot] != 0 {
		slot = (slot + 1) & (len(f.slots) - 1)
	}
	f.slots[slot] = at | tag
}

// cut takes a block out, before its word changes.
func (f *finder) cut(blocks []block, at uint32) {
	mask := len(f.slots) - 1
	hole, _ := f.home(f.word(&blocks[at]))
	for f.slots[hole]&position != at {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; f.slots[i] != 0; i = (i + 1) & mask {
		home, _ := f.home(f.word(&blocks[f.slots[i]&position]))
		if (i-home)&mask >= (i-hole)&mask {
			f.slots[hole], hole = f.slots[i], i
		}
	}
	f.slots[hole] = 0
	f.used--
}

// touch reads where these words are or will be, none after another, so that the memory is fetched at once.
func (f *finder) touch(words []uint64) (sum uint32) {
	if len(f.slots) > 0 {
		for _, w := range words {
			slot, _ := f.home(w)
			sum += f.slots[slot]
		}
	}
	return sum
}
