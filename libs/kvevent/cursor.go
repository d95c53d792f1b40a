package kvevent

import (
	"encoding/binary"
	"math"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// cursor is a payload and a position in it: an event can be read again from its start and skipped exactly.
type cursor struct {
	buf []byte
	off int
}

func (c *cursor) left() int { return len(c.buf) - c.off }

// peek returns the code of the next value, or the code that msgpack never uses where there is none.
func (c *cursor) peek() byte {
	if c.left() == 0 {
		return neverUsed
	}
	return c.buf[c.off]
}

const neverUsed = 0xc1

// take returns the next n bytes, which stay part of the payload.
func (c *cursor) take(n int) ([]byte, error) {
	if n < 0 || n > c.left() {
		return nil, ErrTruncated
	}
	b := c.buf[c.off : c.off+n]
	c.off += n
	return b, nil
}

// integer reads an integer of any width: its 64 bits, and whether it is negative.
func (c *cursor) integer() (bits uint64, negative bool, err error) {
	code := c.peek()
	if msgpcode.IsFixedNum(code) {
		c.off++
		return uint64(int64(int8(code))), int8(code) < 0, nil
	}
	if code < msgpcode.Uint8 || code > msgpcode.Int64 {
		return 0, false, c.unexpected("an integer")
	}
	width := 1 << ((code - msgpcode.Uint8) & 3) // uint 8, 16, 32, 64, then int 8, 16, 32, 64
	if c.left() < 1+width {
		return 0, false, ErrTruncated
	}
	b := c.buf[c.off+1:]
	c.off += 1 + width
	switch code {
	case msgpcode.Uint8:
		return uint64(b[0]), false, nil
	case msgpcode.Uint16:
		return uint64(binary.BigEndian.Uint16(b)), false, nil
	case msgpcode.Uint32:
		return uint64(binary.BigEndian.Uint32(b)), false, nil
	case msgpcode.Uint64:
		return binary.BigEndian.Uint64(b), false, nil
	case msgpcode.Int8:
		bits = uint64(int64(int8(b[0])))
	case msgpcode.Int16:
		bits = uint64(int64(int16(binary.BigEndian.Uint16(b))))
	case msgpcode.Int32:
		bits = uint64(int64(int32(binary.BigEndian.Uint32(b))))
	default:
		bits = binary.BigEndian.Uint64(b)
	}
	return bits, int64(bits) < 0, nil
}

// float reads a float of any width, or a whole number.
func (c *cursor) float() (float64, error) {
	switch code := c.peek(); code {
	case msgpcode.Float, msgpcode.Double:
		width := 4 << (code - msgpcode.Float)
		if c.left() < 1+width {
			return 0, ErrTruncated
		}
		b := c.buf[c.off+1:]
		c.off += 1 + width
		if code == msgpcode.Float {
			return float64(math.Float32frombits(binary.BigEndian.Uint32(b))), nil
		}
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	}
	bits, negative, err := c.integer()
	if negative {
		return float64(int64(bits)), err
	}
	return float64(bits), err
}

// head reads the head of an array, a map, a string or bytes, and returns the length that it claims.
func (c *cursor) head() (int, error) {
	code := c.peek()
	switch {
	case msgpcode.IsFixedString(code):
		c.off++
		return int(code & msgpcode.FixedStrMask), nil
	case msgpcode.IsFixedArray(code), msgpcode.IsFixedMap(code):
		c.off++
		return int(code & msgpcode.FixedArrayMask), nil // that of maps is the same
	case code < msgpcode.Bin8:
		return 0, ErrTruncated // nothing is left
	}
	width := int(layouts[code-msgpcode.Bin8].length)
	n, err := c.size(width)
	if err != nil {
		return 0, err
	}
	c.off += 1 + width
	return int(n), nil
}

// skip moves past the next value, however deeply it is nested: it keeps a count instead of a stack,
// because a payload of megabytes may be nothing but opening brackets.
func (c *cursor) skip() error {
	for open := uint64(1); open > 0; open-- {
		inner, err := c.skipHead()
		if err != nil {
			return err
		}
		open += inner
	}
	return nil
}

// skipHead moves past one value without its elements and returns how many of those follow.
func (c *cursor) skipHead() (inner uint64, err error) {
	code := c.peek()
	switch {
	case code == neverUsed:
		return 0, ErrTruncated
	case msgpcode.IsFixedNum(code), code == msgpcode.Nil, code == msgpcode.False, code == msgpcode.True:
		return 0, c.pass(0, 0)
	case msgpcode.IsFixedMap(code):
		return 2 * uint64(code&msgpcode.FixedMapMask), c.pass(0, 0)
	case msgpcode.IsFixedArray(code):
		return uint64(code & msgpcode.FixedArrayMask), c.pass(0, 0)
	case msgpcode.IsFixedString(code):
		return 0, c.pass(0, uint64(code&msgpcode.FixedStrMask))
	}
	l := layouts[code-msgpcode.Bin8]
	size, err := c.size(int(l.length))
	if err != nil {
		return 0, err
	}
	if l.elements > 0 {
		return uint64(l.elements) * size, c.pass(int(l.length), 0)
	}
	return 0, c.pass(int(l.length), uint64(l.fixed)+size)
}

// size reads the length field of the given width behind the next code, without moving.
func (c *cursor) size(width int) (uint64, error) {
	if c.left() < 1+width {
		return 0, ErrTruncated
	}
	b := c.buf[c.off+1:]
	switch width {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), nil
	}
	return 0, nil
}

// pass moves behind one code byte, its length field and its content.
func (c *cursor) pass(length int, content uint64) error {
	if uint64(c.left()) < uint64(1+length)+content {
		return ErrTruncated
	}
	c.off += 1 + length + int(content)
	return nil
}

// layouts says, for the codes from bin 8 on, how the bytes behind the code are laid out:
// a length field, fixed content, and how many elements one unit of length stands for.
// From the msgpack specification, "Formats".
var layouts = [...]struct{ length, fixed, elements uint8 }{
	{length: 1}, {length: 2}, {length: 4}, // bin 8, 16, 32
	{length: 1, fixed: 1}, {length: 2, fixed: 1}, {length: 4, fixed: 1}, // ext 8, 16, 32: and a type
	{fixed: 4}, {fixed: 8}, // float 32, 64
	{fixed: 1}, {fixed: 2}, {fixed: 4}, {fixed: 8}, // uint 8 to 64
	{fixed: 1}, {fixed: 2}, {fixed: 4}, {fixed: 8}, // int 8 to 64
	{fixed: 2}, {fixed: 3}, {fixed: 5}, {fixed: 9}, {fixed: 17}, // fixext 1 to 16: and a type
	{length: 1}, {length: 2}, {length: 4}, // str 8, 16, 32
	{length: 2, elements: 1}, {length: 4, elements: 1}, // array 16, 32
	{length: 2, elements: 2}, {length: 4, elements: 2}, // map 16, 32
}
