// Package bpe turns text into the token ids of a byte-level BPE tokenizer, read from a model's tokenizer.json.
//
// It is exact or it refuses: a file with anything that is not done here to the last id is not loaded, and a text with a
// character that tokenizers class differently is not encoded. The reference is Hugging Face's tokenizers library, which
// vLLM uses: its order of merges (by pair, lowest rank first, leftmost on ties) and its regular expressions (Oniguruma).
package bpe

import (
	"errors"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// ErrInexact is wrapped by the errors of files and texts that are not done exactly here.
var ErrInexact = errors.New("not done exactly here")

// errUnsettled is the error of a text, without a byte of it.
var errUnsettled = inexact("text: characters newer than the tokenizer's tables")

// longest is the most bytes of a piece: about 30 ms of work, which nobody interrupts.
const longest = 32 << 10

var errLong = inexact("text: a run of letters or other characters over %d bytes", longest)

// Tokenizer encodes text. All methods may be called from any goroutine and take no lock.
type Tokenizer struct {
	pattern pattern
	nfc     bool
	added   added // found in the text as it is
	later   added // found in what lies between, once normalized
	merges  merges
	before  []uint32
	after   []uint32
	special []string
}

// Frame returns the ids that the post-processor puts before and after a text when special tokens are asked for.
// The slices are shared and must not be written to.
func (t *Tokenizer) Frame() (before, after []uint32) { return t.before, t.after }

// Added returns the texts of the added tokens (special ones and others) in the file's order.
func (t *Tokenizer) Added() []string { return t.special }

// Append appends the ids of text, which is valid UTF-8, to dst; texts of added tokens become their ids. Cost: about
// 0.1 us a token. An error, for a text that is not done exactly or would take too long, means that nothing is known.
func (t *Tokenizer) Append(dst []uint32, text string) ([]uint32, error) {
	for text != "" {
		start, end, id := t.added.next(text)
		var err error
		if dst, err = t.plain(dst, text[:start]); err != nil {
			return dst, err
		}
		if start == end {
			break
		}
		dst, text = append(dst, id), text[end:]
	}
	return dst, nil
}

// plain encodes text between added tokens.
func (t *Tokenizer) plain(dst []uint32, text string) ([]uint32, error) {
	if !settled(text) {
		return dst, errUnsettled
	}
	if t.nfc {
		text = norm.NFC.String(text)
	}
	for text != "" {
		start, end, id := t.later.next(text)
		for rest := text[:start]; rest != ""; {
			n := t.pattern.next(rest)
			if n > longest {
				return dst, errLong
			}
			dst = t.merges.encode(dst, rest[:n])
			rest = rest[n:]
		}
		if start == end {
			break
		}
		dst, text = append(dst, id), text[end:]
	}
	return dst, nil
}

// settled says that all tables agree on every character of s. Go's are those of Unicode 15.0, Oniguruma's of 14.0.
func settled(s string) bool {
	for {
		i := strings.IndexByte(s, 0xF0) // leads the characters beyond U+FFFF, as all that are newer are
		if i < 0 {
			return true
		}
		s = s[i:]
		for _, r := range s[:min(4, len(s))] {
			if unicode.Is(newer, r) {
				return false
			}
			break
		}
		s = s[1:]
	}
}

// newer are the letters and numbers of Unicode 15.0 that 14.0 did not have.
var newer = &unicode.RangeTable{R32: []unicode.Range32{
	{Lo: 0x1123F, Hi: 0x11240, Stride: 1},
	{Lo: 0x11F02, Hi: 0x11F59, Stride: 1},
	{Lo: 0x1342F, Hi: 0x1342F, Stride: 1},
	{Lo: 0x13441, Hi: 0x13446, Stride: 1},
	{Lo: 0x1B132, Hi: 0x1B132, Stride: 1},
	{Lo: 0x1B155, Hi: 0x1B155, Stride: 1},
	{Lo: 0x1D2C0, Hi: 0x1D2D3, Stride: 1},
	{Lo: 0x1DF25, Hi: 0x1DF2A, Stride: 1},
	{Lo: 0x1E030, Hi: 0x1E06D, Stride: 1},
	{Lo: 0x1E4D0, Hi: 0x1E4F9, Stride: 1},
	{Lo: 0x2B739, Hi: 0x2B739, Stride: 1},
	{Lo: 0x31350, Hi: 0x323AF, Stride: 1},
}}
