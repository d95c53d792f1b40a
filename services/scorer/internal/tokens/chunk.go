package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// chunkBytes is the least length of a chunk but the last: what one more turn of a conversation tokenizes again.
const chunkBytes = 2048

// errText is the error of a chunk that is not a piece of a JSON string, or one whose text engines may read otherwise.
var errText = errors.New("text is not plain JSON")

// chunkEnd returns where the first chunk of raw ends: raw is the inside of a JSON string, and the chunk's end does not
// depend on what follows it but for one character, so that a longer text has the same chunks. Each begins and ends
// between characters, and tokens are the same as without the division (bpe.CutBetween). Cost: a few nanoseconds where
// a word ends soon after chunkBytes.
func chunkEnd(raw []byte) int {
	if len(raw) <= chunkBytes {
		return len(raw)
	}
	before := rune(-1)
	for at := boundary(raw, chunkBytes); at < len(raw); {
		after, width := character(raw[at:])
		if bpe.CutBetween(before, after) {
			return at
		}
		before = after
		at += width
	}
	return len(raw)
}

// boundary returns a place at or before at, by a few bytes, where a character begins, escaped or not.
func boundary(raw []byte, at int) int {
	const escape = len(`\uFFFF`)
	if i := bytes.LastIndexByte(raw[at-escape:at], '\\'); i >= 0 {
		at += i - escape
		for at > 0 && raw[at-1] == '\\' { // the first of several in a row begins an escape
			at--
		}
		return at
	}
	for at > 0 && !utf8.RuneStart(raw[at]) {
		at--
	}
	return at
}

// character returns the character that raw begins with and its length; -1 for what is not worth decoding.
func character(raw []byte) (rune, int) {
	if raw[0] != '\\' {
		return utf8.DecodeRune(raw)
	}
	if len(raw) > 1 && raw[1] == 'n' {
		return '\n', 2
	}
	if len(raw) >= 6 && raw[1] == 'u' {
		if n, err := strconv.ParseUint(string(raw[2:6]), 16, 32); err == nil {
			return rune(n), 6
		}
	}
	return -1, min(2, len(raw))
}

// unquote returns the text of a chunk.
func unquote(raw []byte) (string, error) {
	if !utf8.Valid(raw) {
		return "", errText
	}
	plain := true
	for _, b := range raw {
		if b == '\\' || b < ' ' || b == '"' {
			plain = false
			break
		}
	}
	if plain {
		return string(raw), nil
	}
	quoted := make([]byte, 0, len(raw)+2)
	quoted = append(append(append(quoted, '"'), raw...), '"')
	var text string
	if json.Unmarshal(quoted, &text) != nil || strings.ContainsRune(text, utf8.RuneError) {
		return "", errText // U+FFFD is what Go makes of half a surrogate pair, which engines refuse
	}
	return text, nil
}
