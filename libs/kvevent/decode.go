package kvevent

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Limits bound what one batch may hold. Claimed lengths are bounded by the payload in any case; these bound the
// memory that a large payload can turn into. A zero field means its default.
type Limits struct {
	Events int // default 131,072
	Blocks int // block hashes over all events; default 1,048,576
	Tokens int // over all events; default 4,194,304
	Extra  int // extra keys over all events; default 131,072
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value   *int
		initial int
	}{{&l.Events, 1 << 17}, {&l.Blocks, 1 << 20}, {&l.Tokens, 1 << 22}, {&l.Extra, 1 << 17}} {
		if *f.value == 0 {
			*f.value = f.initial
		}
	}
	return l
}

// Decoder reads batches. The zero Decoder is ready; it is not safe for concurrent use.
type Decoder struct {
	Limits Limits

	limits Limits // with defaults, for the batch at hand
	in     cursor
	names  [64]string // recently seen strings, so that media and LoRA names are not allocated for each event
}

// Decode reads the payload of one message into b, whose slices it reuses; nothing in b refers to payload afterwards.
//
// An error wraps ErrBatch and means that no event could be found. Everything else is forgiven: an event that cannot be
// read is skipped and counted in b.Bad, and so is, once, all that follows a place where the framing itself is broken.
// Without new strings and within the capacity of b it does not allocate; time and memory are O(len(payload)).
func (d *Decoder) Decode(payload []byte, b *Batch) error {
	b.reset()
	d.in = cursor{buf: payload}
	d.limits = d.Limits.withDefaults()
	err := d.batch(b)
	d.in.buf = nil // payload is the caller's again
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBatch, err)
	}
	return nil
}

func (d *Decoder) batch(b *Batch) error {
	items, events, err := d.outer(b)
	if err != nil {
		return err
	}
	if !d.events(events, b) {
		return nil
	}
	if items > 2 && !d.rank(b) {
		return nil
	}
	for range items - 3 {
		if err := d.in.skip(); err != nil {
			b.fail(fmt.Errorf("read what follows the rank: %w", err))
			return nil
		}
		b.Ignored++
	}
	if d.in.left() > 0 {
		b.Ignored++ // bytes behind the batch
	}
	return nil
}

// outer reads the batch up to its first event: how many items it has, and how many events the second one claims.
func (d *Decoder) outer(b *Batch) (items, events int, err error) {
	switch code := d.in.peek(); {
	case isMap(code):
		return 0, 0, shapeError{"an array, not a map", code}
	case !isArray(code):
		return 0, 0, d.in.unexpected("an array")
	}
	if items, err = d.in.head(); err != nil {
		return 0, 0, err
	}
	if items < 2 {
		return 0, 0, fmt.Errorf("%w: want 2 items or more, found %d", ErrShape, items)
	}
	if b.TS, err = d.in.float(); err != nil {
		return 0, 0, fmt.Errorf("read the time: %w", err)
	}
	if !isArray(d.in.peek()) {
		return 0, 0, d.in.unexpected("an array of events")
	}
	events, err = d.in.head()
	return items, events, err
}

// events reads n events and reports whether what follows them can be found.
func (d *Decoder) events(n int, b *Batch) bool {
	for i := range n {
		start, kept := d.in.off, b.mark()
		err := ErrLimit
		if len(b.Events) < d.limits.Events {
			err = d.event(b)
		}
		if err == nil {
			continue
		}
		b.rewind(kept)
		d.in.off = start
		if lost := d.in.skip(); lost != nil {
			b.fail(fmt.Errorf("read event %d of %d, the rest is lost: %w", i, n, lost))
			return false
		}
		if len(b.Errs) < keptErrors {
			err = fmt.Errorf("read event %d of %d: %w", i, n, err)
		}
		b.fail(err)
	}
	return true
}

// rank reads the third item of the batch and reports whether what follows can be found.
func (d *Decoder) rank(b *Batch) bool {
	start, none := d.in.off, d.in.peek() == msgpcode.Nil
	if rank, err := d.count(); err == nil {
		b.Rank, b.HasRank = rank, true
		return true
	}
	d.in.off = start
	if err := d.in.skip(); err != nil {
		b.fail(fmt.Errorf("read the rank: %w", err))
		return false
	}
	if !none {
		b.Ignored++
	}
	return true
}

func isArray(code byte) bool {
	return msgpcode.IsFixedArray(code) || code == msgpcode.Array16 || code == msgpcode.Array32
}

func isMap(code byte) bool {
	return msgpcode.IsFixedMap(code) || code == msgpcode.Map16 || code == msgpcode.Map32
}

func isString(code byte) bool {
	return msgpcode.IsString(code)
}
