package openai

import (
	"encoding/binary"
	"math/bits"
)

func (s *scanner) literal(word string) error {
	for k := range len(word) {
		if s.i == len(s.b) || s.b[s.i] != word[k] {
			return s.fail("expected " + word)
		}
		s.i++
	}
	return nil
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func (s *scanner) digits() error {
	start := s.i
	for s.i < len(s.b) && isDigit(s.b[s.i]) {
		s.i++
	}
	if s.i == start {
		return s.fail("expected a digit")
	}
	return nil
}

func (s *scanner) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

func (s *scanner) number() error {
	if s.at('-') {
		s.i++
	}
	if s.at('0') {
		s.i++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.at('.') {
		s.i++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if s.at('e') || s.at('E') {
		s.i++
		if s.at('+') || s.at('-') {
			s.i++
		}
		return s.digits()
	}
	return nil
}

// text reads a string whose opening quote is the next byte. coded says that it is not plain ASCII without escapes.
func (s *scanner) text() (coded bool, err error) {
	for s.i++; ; {
		some := s.plain()
		coded = coded || some
		if s.i == len(s.b) {
			return coded, s.fail("string does not end")
		}
		switch s.b[s.i] {
		case '"':
			s.i++
			return coded, nil
		case '\\':
			coded = true
			if err := s.escape(); err != nil {
				return coded, err
			}
		default:
			return coded, s.fail("control character in a string")
		}
	}
}

func (s *scanner) escape() error {
	s.i++
	if s.i == len(s.b) {
		return s.fail("string does not end")
	}
	switch s.b[s.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return nil
	case 'u':
		s.i++
		for range 4 {
			if s.i == len(s.b) || !isHex(s.b[s.i]) {
				return s.fail("expected a hexadecimal digit")
			}
			s.i++
		}
		return nil
	}
	return s.fail("unknown escape in a string")
}

func isHex(c byte) bool { return isDigit(c) || c|0x20-'a' <= 5 }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// shortEscapes are the characters that make an escape with a backslash before them.
var shortEscapes = [256]bool{'"': true, '\\': true, '/': true, 'b': true, 'f': true, 'n': true, 'r': true, 't': true}

// plain skips bytes that need no look, eight at a time: all but quotes, backslashes and control characters. Short escapes,
// of which prose has one in most lines, it skips too. It reports whether there were any, or bytes beyond ASCII. The word
// test is the classic "has a zero byte" and "has a byte less than n".
func (s *scanner) plain() (coded bool) {
	var seen uint64
	b, i := s.b, s.i
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		stop := ((quote-ones)&^quote | (slash-ones)&^slash | (w-ones*0x20)&^w) & highs
		if stop == 0 {
			seen |= w
			i += 8
			continue
		}
		n := bits.TrailingZeros64(stop) / 8
		seen |= w & (1<<(8*n) - 1)
		i += n
		if b[i] != '\\' || i+1 == len(b) || !shortEscapes[b[i+1]] {
			s.i = i
			return seen&highs != 0
		}
		seen |= highs
		i += 2
	}
	for i < len(b) {
		c := b[i]
		if c == '"' || c == '\\' || c < 0x20 {
			break
		}
		seen |= uint64(c)
		i++
	}
	s.i = i
	return seen&highs != 0
}
