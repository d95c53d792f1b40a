package openai

import "fmt"

// MaxDepth is how deep values may be nested, the body itself included.
const MaxDepth = 512

// MaxMembers is how many members the top-level object may have: each costs ten times the memory of its shortest
// spelling, and the API knows fewer than a hundred.
const MaxMembers = 4096

// usualMembers is room for a usual request.
const usualMembers = 16

// Kind is the type of a JSON value, known from its first byte.
type Kind uint8

// The kinds of a JSON value.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Member is one name and value of a body's top-level object, as offsets into that body.
type Member struct {
	KeyStart, KeyEnd int // the name with its quotes
	Start, End       int // the value
	Kind             Kind
	coded            bool // the name is not plain ASCII without escapes
}

// Body is a scanned body. The zero value is ready for Scan; it keeps the slice of the last body until the next one.
type Body struct {
	Bytes   []byte
	Members []Member // in the order of the body, duplicates included
	open    int      // offset of the opening brace
}

// SyntaxError says why and where (byte offset) a body is not one JSON object.
type SyntaxError struct {
	Offset int
	Reason string
}

// Error says the reason with its offset.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// Scan finds the members of the JSON object that raw is, in one pass and without allocating once b.Members has grown.
// What it accepts encoding/json accepts too (RFC 8259, within MaxDepth and MaxMembers); what it refuses is a
// *SyntaxError.
func (b *Body) Scan(raw []byte) error {
	if b.Members == nil {
		b.Members = make([]Member, 0, usualMembers)
	}
	b.Bytes, b.Members = raw, b.Members[:0]
	s := scanner{b: raw}
	if len(raw) >= 3 && raw[0] == 0xEF && raw[1] == 0xBB && raw[2] == 0xBF {
		return s.fail("byte order mark")
	}
	s.space()
	if s.i == len(raw) {
		return s.fail("empty body")
	}
	if raw[s.i] != '{' {
		return s.fail("body is not a JSON object")
	}
	b.open = s.i
	s.i++
	if err := s.members(b); err != nil {
		b.Members = b.Members[:0]
		return err
	}
	if s.space(); s.i != len(raw) {
		b.Members = b.Members[:0]
		return s.fail("data after the JSON object")
	}
	return nil
}

// scanner walks one body; i is the next byte to read.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) fail(reason string) error {
	if s.i >= len(s.b) && len(s.b) > 0 {
		reason = "body ends early: " + reason
	}
	return &SyntaxError{Offset: s.i, Reason: reason}
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// next skips white space and returns the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// members reads the rest of the top-level object, its brace already read.
func (s *scanner) members(b *Body) error {
	if s.next() == '}' {
		s.i++
		return nil
	}
	for {
		if len(b.Members) == MaxMembers {
			return s.fail("too many members")
		}
		m, err := s.member()
		if err != nil {
			return err
		}
		b.Members = append(b.Members, m)
		switch s.next() {
		case ',':
			s.i++
		case '}':
			s.i++
			return nil
		default:
			return s.fail("expected , or }")
		}
	}
}

func (s *scanner) member() (m Member, err error) {
	if err := s.name(); err != nil {
		return m, err
	}
	m.KeyStart = s.i
	if m.coded, err = s.text(); err != nil {
		return m, err
	}
	m.KeyEnd = s.i
	if err := s.colon(); err != nil {
		return m, err
	}
	if c := s.next(); c == '{' {
		m.Kind = Object
	} else {
		m.Kind = kindOf(c)
	}
	m.Start = s.i
	err = s.value()
	m.End = s.i
	return m, err
}

func kindOf(c byte) Kind {
	switch c {
	case '"':
		return String
	case '[':
		return Array
	case 't', 'f':
		return Bool
	case 'n':
		return Null
	}
	return Number
}

// name stands on the quote of a member's name.
func (s *scanner) name() error {
	if s.next() != '"' {
		return s.fail("expected a member name")
	}
	return nil
}

func (s *scanner) colon() error {
	if s.next() != ':' {
		return s.fail("expected :")
	}
	s.i++
	return nil
}

// value reads one value of any depth; it keeps one bit for each open bracket and does not recurse.
func (s *scanner) value() error {
	var objects [MaxDepth / 64]uint64
	depth := 0
	for {
		opened, err := s.scalarOrOpen()
		if err != nil {
			return err
		}
		if opened != 0 {
			if depth+2 > MaxDepth {
				s.i--
				return s.fail("nested too deep")
			}
			word, bit := depth/64, uint64(1)<<(depth%64)
			objects[word] &^= bit
			if opened == '{' {
				objects[word] |= bit
			}
			depth++
			if c := s.next(); c == opened+2 { // '[' + 2 = ']', '{' + 2 = '}'
				s.i++
				depth--
			} else if opened == '{' {
				if err := s.key(); err != nil {
					return err
				}
				continue
			} else {
				continue
			}
		}
		if depth, err = s.closeOrComma(&objects, depth); err != nil || depth == 0 {
			return err
		}
	}
}

// closeOrComma reads what may follow a value: closing brackets, then a comma and what leads to the next value.
// It returns the depth that remains; at 0 the outermost value is complete.
func (s *scanner) closeOrComma(objects *[MaxDepth / 64]uint64, depth int) (int, error) {
	for depth > 0 {
		object := objects[(depth-1)/64]>>((depth-1)%64)&1 == 1
		c := s.next()
		switch {
		case c == ',':
			s.i++
			if object {
				return depth, s.key()
			}
			s.integers()
			return depth, nil
		case c == '}' && object, c == ']' && !object:
			s.i++
			depth--
		case object:
			return depth, s.fail("expected , or }")
		default:
			return depth, s.fail("expected , or ]")
		}
	}
	return 0, nil
}

// integers skips elements of an array that are plain integers, each with its comma: prompts come as token ids, too.
// It stops before the first element that is anything else, or the last.
func (s *scanner) integers() {
	for i := s.i; i < len(s.b); s.i = i {
		if s.b[i] == ' ' {
			i++
		}
		start := i
		for i < len(s.b) && isDigit(s.b[i]) {
			i++
		}
		if i == start || i == len(s.b) || s.b[i] != ',' || s.b[start] == '0' && i > start+1 {
			return
		}
		i++
	}
}

func (s *scanner) key() error {
	if err := s.name(); err != nil {
		return err
	}
	if _, err := s.text(); err != nil {
		return err
	}
	return s.colon()
}

// scalarOrOpen reads a scalar and returns 0, or reads an opening bracket and returns it.
func (s *scanner) scalarOrOpen() (byte, error) {
	switch c := s.next(); c {
	case '{', '[':
		s.i++
		return c, nil
	case '"':
		_, err := s.text()
		return 0, err
	case 't':
		return 0, s.literal("true")
	case 'f':
		return 0, s.literal("false")
	case 'n':
		return 0, s.literal("null")
	default:
		if c == '-' || isDigit(c) {
			return 0, s.number()
		}
		return 0, s.fail("expected a value")
	}
}
