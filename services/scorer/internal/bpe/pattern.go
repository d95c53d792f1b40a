package bpe

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern is a regular expression that cuts text into pieces, done by hand: no expression engine of Go's world has both
// its look-ahead and a bound on its time. The expressions are those of the files, by which they are known.
type pattern struct {
	digits int  // of a number in one piece; 0 for the oldest expression, which has no bound and differs otherwise
	oldest bool // GPT-2's
}

const (
	gpt2  = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	qwen2 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	llama = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// patternOf knows the expressions that are done here.
func patternOf(expression string) (pattern, bool) {
	switch expression {
	case gpt2:
		return pattern{oldest: true}, true
	case qwen2:
		return pattern{digits: 1}, true
	case llama:
		return pattern{digits: 3}, true
	}
	return pattern{}, false
}

type class uint8

const (
	other class = iota
	letter
	number
	space
	newline // \r or \n, which are white space too
	none    // the end of the text
)

// classOf returns the class of the first character of s and its length.
func classOf(s string) (class, int) {
	if s == "" {
		return none, 0
	}
	if b := s[0]; b < utf8.RuneSelf {
		return ascii[b], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	switch {
	case unicode.IsLetter(r):
		return letter, n
	case unicode.Is(unicode.N, r):
		return number, n
	case unicode.IsSpace(r):
		return space, n
	}
	return other, n
}

var ascii = func() (table [utf8.RuneSelf]class) {
	for b := range table {
		switch {
		case 'a' <= b|0x20 && b|0x20 <= 'z':
			table[b] = letter
		case '0' <= b && b <= '9':
			table[b] = number
		case b == '\r' || b == '\n':
			table[b] = newline
		case b == ' ' || '\t' <= b && b <= '\f':
			table[b] = space
		}
	}
	return table
}()

// run returns where the characters of class c that begin at s[at:] end, at most limit of them.
func run(s string, at int, c class, limit int) int {
	for ; limit > 0; limit-- {
		got, n := classOf(s[at:])
		if got != c {
			break
		}
		at += n
	}
	return at
}

const all = int(^uint(0) >> 1)

// next returns the length of the piece that s, which is not empty, begins with. It reads s to the end of the piece and
// of white space that follows or makes it, and at most three characters further.
func (p pattern) next(s string) int {
	if n := p.contraction(s); n > 0 {
		return n
	}
	c, n := classOf(s)
	after, _ := classOf(s[n:])
	if p.oldest {
		start := 0
		if s[0] == ' ' && after <= number {
			start, c = 1, after
		}
		if c <= number {
			return run(s, start, c, all)
		}
		return blank(s, false)
	}
	switch {
	case c == letter:
		return run(s, n, letter, all)
	case c == number:
		return run(s, 0, number, p.digits)
	case c != newline && after == letter:
		return run(s, n, letter, all)
	case c == other, s[0] == ' ' && after == other:
		return run(s, run(s, n, other, all), newline, all)
	}
	return blank(s, true)
}

// blank returns the length of the piece of white space that s begins with: to its last line break where lines count,
// else without its last character where text follows, unless that is all of it.
func blank(s string, lines bool) int {
	end, last, broken := 0, 0, 0
	for {
		c, n := classOf(s[end:])
		if c == newline {
			broken = end + n
		} else if c != space {
			switch {
			case lines && broken > 0:
				return broken
			case c == none || last == 0:
				return end
			}
			return last
		}
		last = end
		end += n
	}
}

// contraction returns the length of the English contraction that s begins with, or 0.
func (p pattern) contraction(s string) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	if p.oldest {
		for _, short := range []string{"s", "t", "re", "ve", "m", "ll", "d"} {
			if strings.HasPrefix(s[1:], short) {
				return 1 + len(short)
			}
		}
		return 0
	}
	switch s[1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if len(s) > 2 && s[2]|0x20 == 'e' {
			return 3
		}
	case 'l':
		if len(s) > 2 && s[2]|0x20 == 'l' {
			return 3
		}
	}
	if strings.HasPrefix(s[1:], "ſ") { // the long s, which folds to s
		return 1 + len("ſ")
	}
	return 0
}
