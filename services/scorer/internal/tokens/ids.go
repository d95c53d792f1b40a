package tokens

import (
	"bytes"
	"math"
)

// ids takes an array of token ids: integers from 0 to 2^31-1, written as such, with no sign, fraction, exponent or
// leading zero. Cost: one allocation, of four bytes an id.
func (c *cursor) ids() ([]uint32, bool) {
	if !c.take('[') {
		return nil, false
	}
	end := bytes.IndexByte(c.data[c.at:], ']')
	if end < 0 {
		return nil, false
	}
	list := c.data[c.at : c.at+end]
	c.at += end + 1
	inner := cursor{data: list}
	if inner.peek() == 0 && inner.at == len(list) {
		return nil, true
	}
	dst := make([]uint32, 0, bytes.Count(list, []byte{','})+1)
	for {
		id, ok := inner.id()
		if !ok {
			return nil, false
		}
		dst = append(dst, id)
		if inner.peek() == 0 && inner.at == len(list) {
			return dst, true
		}
		if !inner.take(',') {
			return nil, false
		}
	}
}

func (c *cursor) id() (uint32, bool) {
	c.peek()
	start, v := c.at, uint64(0)
	for c.at < len(c.data) && c.data[c.at]-'0' <= 9 {
		v = v*10 + uint64(c.data[c.at]-'0')
		c.at++
		if v > math.MaxInt32 {
			return 0, false
		}
	}
	digits := c.at - start
	if digits == 0 || digits > 1 && c.data[start] == '0' {
		return 0, false
	}
	return uint32(v), true
}
