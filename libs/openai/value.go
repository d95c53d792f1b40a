package openai

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"
)

// ErrType says that a value has another type than its reader wants.
var ErrType = errors.New("value has another type")

// Find returns the last member with that name, which is the one that decoders keep. Names with escapes are decoded.
func (b *Body) Find(name string) (Member, bool) {
	for i := len(b.Members) - 1; i >= 0; i-- {
		if b.named(&b.Members[i], name) {
			return b.Members[i], true
		}
	}
	return Member{}, false
}

// Name returns a member's decoded name, as encoding/json decodes it.
func (b *Body) Name(m Member) string {
	raw := b.Bytes[m.KeyStart:m.KeyEnd]
	if !m.coded {
		return string(raw[1 : len(raw)-1])
	}
	name, _ := ReadString(raw)
	return name
}

func (b *Body) named(m *Member, name string) bool {
	if m.coded {
		return b.Name(*m) == name
	}
	return string(b.Bytes[m.KeyStart+1:m.KeyEnd-1]) == name
}

// Value returns the bytes of the named member's value; nil when it is absent or null, which the API treats alike.
// The slice is part of the body.
func (b *Body) Value(name string) []byte {
	m, ok := b.Find(name)
	if !ok || m.Kind == Null {
		return nil
	}
	return b.Bytes[m.Start:m.End]
}

// ReadString decodes a scanned JSON string; bytes that are no UTF-8 become U+FFFD as in encoding/json.
// A value of another type is ErrType.
func ReadString(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", ErrType
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' {
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return "", ErrType
			}
			return s, nil
		}
	}
	if !utf8.Valid(inner) {
		return string([]rune(string(inner))), nil
	}
	return string(inner), nil
}

// ReadBool reads true or false. A value of another type is ErrType.
func ReadBool(raw []byte) (bool, error) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, ErrType
}

// ReadInt reads a whole number, also one spelt 16.0 or 1e3 as the engine's own parser takes it. Anything else, and what
// int64 cannot hold, is ErrType.
func ReadInt(raw []byte) (int64, error) {
	if len(raw) == 0 || raw[0] == '"' {
		return 0, ErrType
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return 0, ErrType
	}
	return int64(f), nil
}

// IsEmpty says whether a scanned array, object or string has nothing in it.
func IsEmpty(raw []byte) bool {
	for _, c := range raw[1:max(1, len(raw)-1)] {
		if raw[0] == '"' || c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}
