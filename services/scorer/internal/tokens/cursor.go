package tokens

import (
	"bytes"
	"strings"
)

// cursor walks JSON bytes without building values. It checks what decides where a value ends (strings, nesting), not
// the whole grammar: the engine refuses the rest. Its methods return false where the bytes are not what was asked for.
type cursor struct {
	data []byte
	at   int
}

// peek returns the next byte that is no white space, and 0 at the end.
func (c *cursor) peek() byte {
	for c.at < len(c.data) {
		switch b := c.data[c.at]; b {
		case ' ', '\t', '\n', '\r':
			c.at++
		default:
			return b
		}
	}
	return 0
}

func (c *cursor) take(b byte) bool {
	if c.peek() != b {
		return false
	}
	c.at++
	return true
}

// text takes a string and returns it raw, with its quotes.
func (c *cursor) text() ([]byte, bool) {
	if c.peek() != '"' {
		return nil, false
	}
	start := c.at
	for at := start + 1; ; {
		n := bytes.IndexByte(c.data[at:], '"')
		if n < 0 {
			return nil, false
		}
		at += n + 1
		escapes := 0
		for c.data[at-2-escapes] == '\\' { // ends at the opening quote
			escapes++
		}
		if escapes%2 == 0 {
			c.at = at
			return c.data[start:at], true
		}
	}
}

// skip takes any one value.
func (c *cursor) skip() bool {
	switch c.peek() {
	case '"':
		_, ok := c.text()
		return ok
	case '{', '[':
		return c.skipNested()
	}
	start := c.at
	for c.at < len(c.data) && !strings.ContainsRune(",:]}\"[{ \t\r\n", rune(c.data[c.at])) {
		c.at++
	}
	return c.at > start
}

// skipNested counts brackets without telling the kinds apart: bytes that a strict parser accepts end at the same place.
func (c *cursor) skipNested() bool {
	for depth := 0; c.at < len(c.data); {
		switch c.data[c.at] {
		case '"':
			if _, ok := c.text(); !ok {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		c.at++
		if depth == 0 {
			return true
		}
	}
	return false
}

// object takes an object; each gets a raw key and must take its value.
func (c *cursor) object(each func(key []byte) bool) bool {
	if !c.take('{') {
		return false
	}
	if c.take('}') {
		return true
	}
	for {
		key, ok := c.text()
		if !ok || !c.take(':') || !each(key) {
			return false
		}
		if c.take('}') {
			return true
		}
		if !c.take(',') {
			return false
		}
	}
}

// array takes an array; each must take one element.
func (c *cursor) array(each func() bool) bool {
	if !c.take('[') {
		return false
	}
	if c.take(']') {
		return true
	}
	for each() {
		if c.take(']') {
			return true
		}
		if !c.take(',') {
			return false
		}
	}
	return false
}
