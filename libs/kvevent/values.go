package kvevent

import (
	"encoding/binary"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// array reads the head of an array whose elements must lie in the rest of the payload, one byte each at least.
func (d *Decoder) array(want string) (int, error) {
	if !isArray(d.in.peek()) {
		return 0, d.in.unexpected(want)
	}
	n, err := d.in.head()
	if err != nil || n > d.in.left() {
		return 0, ErrTruncated
	}
	return n, nil
}

// content reads a string or bytes; what it returns is part of the payload.
func (d *Decoder) content() ([]byte, error) {
	n, err := d.in.head()
	if err != nil {
		return nil, err
	}
	return d.in.take(n)
}

// text reads a string. Strings seen lately are not allocated again.
func (d *Decoder) text() (string, error) {
	code := d.in.peek()
	if !isString(code) {
		return "", d.in.unexpected("a string")
	}
	raw, err := d.content()
	if err != nil || len(raw) == 0 {
		return "", err
	}
	slot := &d.names[(7*len(raw)+int(raw[0])+3*int(raw[len(raw)-1]))%len(d.names)]
	if *slot == string(raw) {
		return *slot, nil
	}
	if !utf8.Valid(raw) {
		return "", shapeError{"a string in UTF-8", code}
	}
	s := string(raw)
	if len(s) <= 256 {
		*slot = s
	}
	return s, nil
}

// count reads a number that fits any int: from 0 to 2^31-1.
func (d *Decoder) count() (int, error) {
	bits, negative, err := d.in.integer()
	if err == nil && (negative || bits > math.MaxInt32) {
		return 0, ErrShape
	}
	return int(bits), err
}

func (d *Decoder) signed() (int64, error) {
	bits, negative, err := d.in.integer()
	if err == nil && !negative && bits > math.MaxInt64 {
		return 0, ErrShape
	}
	return int64(bits), err
}

// hash reads an engine hash: the bits of an integer of any sign and width, or the last 8 bytes of a digest.
// vLLM's own integer is the same: int.from_bytes(digest, "big") & (1<<64 - 1).
func (c *cursor) hash() (uint64, error) {
	if !msgpcode.IsBin(c.peek()) {
		bits, _, err := c.integer()
		return bits, err
	}
	n, err := c.head()
	if err != nil {
		return 0, err
	}
	digest, err := c.take(n)
	switch {
	case err != nil:
		return 0, err
	case len(digest) == 0:
		return 0, ErrShape
	}
	var low [8]byte
	digest = digest[max(0, len(digest)-8):]
	copy(low[8-len(digest):], digest)
	return binary.BigEndian.Uint64(low[:]), nil
}

// hashes fills dst with engine hashes.
func (c *cursor) hashes(dst []uint64) (err error) {
	for i := range dst {
		rest := c.buf[c.off:]
		switch {
		case len(rest) >= 9 && rest[0] == msgpcode.Uint64:
			dst[i] = binary.BigEndian.Uint64(rest[1:])
			c.off += 9
		case len(rest) >= 2+32 && rest[0] == msgpcode.Bin8 && rest[1] == 32:
			dst[i] = binary.BigEndian.Uint64(rest[2+24:])
			c.off += 2 + 32
		default:
			if dst[i], err = c.hash(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Decoder) hashes(b *Batch) ([]uint64, error) {
	n, err := d.array("an array of block hashes")
	if err != nil {
		return nil, err
	}
	if len(b.hashes)+n > d.limits.Blocks {
		return nil, ErrLimit
	}
	start := len(b.hashes)
	b.hashes = slices.Grow(b.hashes, n)[:start+n]
	if err := d.in.hashes(b.hashes[start:]); err != nil {
		return nil, err
	}
	return slices.Clip(b.hashes[start:]), nil
}

func (d *Decoder) tokens(b *Batch) ([]uint32, error) {
	n, err := d.array("an array of token ids")
	if err != nil {
		return nil, err
	}
	if len(b.tokens)+n > d.limits.Tokens {
		return nil, ErrLimit
	}
	start := len(b.tokens)
	b.tokens = slices.Grow(b.tokens, n)[:start+n]
	if err := d.in.tokens(b.tokens[start:]); err != nil {
		return nil, err
	}
	return slices.Clip(b.tokens[start:]), nil
}

// tokens fills dst with token ids. Most of the bytes of most payloads go through here.
func (c *cursor) tokens(dst []uint32) error {
	buf, off := c.buf, c.off
	for i := range dst {
		switch {
		case off+3 <= len(buf) && buf[off] == msgpcode.Uint16:
			dst[i] = uint32(binary.BigEndian.Uint16(buf[off+1:]))
			off += 3
		case off+5 <= len(buf) && buf[off] == msgpcode.Uint32:
			dst[i] = binary.BigEndian.Uint32(buf[off+1:])
			off += 5
		default:
			c.off = off
			bits, negative, err := c.integer()
			if err != nil {
				return err
			}
			if negative || bits > math.MaxUint32 {
				return ErrShape
			}
			dst[i] = uint32(bits)
			off = c.off
		}
	}
	c.off = off
	return nil
}

// extra reads the extra keys of all blocks of an event: an array or nil for each.
func (d *Decoder) extra(b *Batch) ([][]ExtraKey, error) {
	n, err := d.array("an array of extra keys")
	if err != nil {
		return nil, err
	}
	if len(b.extra)+n > d.limits.Blocks {
		return nil, ErrLimit
	}
	start := len(b.extra)
	b.extra = slices.Grow(b.extra, n)
	for range n {
		var keys []ExtraKey
		if d.in.peek() == msgpcode.Nil {
			d.in.off++
		} else if keys, err = d.extraOfBlock(b); err != nil {
			return nil, err
		}
		b.extra = append(b.extra, keys)
	}
	return slices.Clip(b.extra[start:]), nil
}

func (d *Decoder) extraOfBlock(b *Batch) ([]ExtraKey, error) {
	n, err := d.array("the extra keys of a block")
	if err != nil {
		return nil, err
	}
	if len(b.keys)+n > d.limits.Extra {
		return nil, ErrLimit
	}
	start := len(b.keys)
	b.keys = slices.Grow(b.keys, n)
	for range n {
		key, err := d.extraKey(b)
		if err != nil {
			return nil, err
		}
		b.keys = append(b.keys, key)
	}
	return slices.Clip(b.keys[start:]), nil
}

func (d *Decoder) extraKey(b *Batch) (key ExtraKey, err error) {
	switch code := d.in.peek(); {
	case isString(code):
		key.Text, err = d.text()
	case msgpcode.IsBin(code):
		var raw []byte
		raw, err = d.content()
		start := len(b.bytes)
		b.bytes = append(b.bytes, raw...)
		if key.Bytes = slices.Clip(b.bytes[start:]); key.Bytes == nil {
			key.Bytes = []byte{}
		}
	case isArray(code):
		var n int
		if n, err = d.array("a multimodal item"); err != nil {
			return key, err
		}
		if n != 2 {
			return key, ErrShape
		}
		if key.Text, err = d.text(); err != nil {
			return key, err
		}
		key.Offset, err = d.signed()
		key.HasOffset = true
	default:
		key.Int, err = d.signed()
		key.IsInt = true
	}
	return key, err
}
