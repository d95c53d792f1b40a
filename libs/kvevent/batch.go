package kvevent

// arenas hold what the slices of a batch's events point into, so that a batch costs a handful of allocations
// while it grows and none afterwards.
type arenas struct {
	hashes []uint64
	tokens []uint32
	extra  [][]ExtraKey
	keys   []ExtraKey
	bytes  []byte
}

func (b *Batch) reset() {
	b.TS, b.Rank, b.HasRank = 0, 0, false
	b.Ignored, b.Bad = 0, 0
	clear(b.Errs)
	b.Errs = b.Errs[:0]
	b.rewind(mark{})
}

// add appends an event; the pointer is good until the next call.
func (b *Batch) add(k Kind) *Event {
	b.Events = append(b.Events, Event{Kind: k})
	return &b.Events[len(b.Events)-1]
}

// mark is how far a batch is filled.
type mark struct{ events, hashes, tokens, extra, keys, bytes, ignored int }

func (b *Batch) mark() mark {
	return mark{len(b.Events), len(b.hashes), len(b.tokens), len(b.extra), len(b.keys), len(b.bytes), b.Ignored}
}

// rewind forgets what was added since the mark.
func (b *Batch) rewind(m mark) {
	b.Events = b.Events[:m.events]
	b.hashes = b.hashes[:m.hashes]
	b.tokens = b.tokens[:m.tokens]
	b.extra = b.extra[:m.extra]
	b.keys = b.keys[:m.keys]
	b.bytes = b.bytes[:m.bytes]
	b.Ignored = m.ignored
}
