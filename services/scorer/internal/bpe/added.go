package bpe

import "strings"

// added finds added tokens in text: the leftmost, of those the longest. The zero value finds none.
type added struct {
	nodes  []node // a trie of bytes; the first node is its root
	starts [256]bool
	first  int // the byte that all begin with, or -1
}

type node struct {
	next map[byte]int
	id   uint32
	ends bool // a token ends here
}

func (a *added) put(text string, id uint32) {
	if len(a.nodes) == 0 {
		a.nodes, a.first = []node{{next: map[byte]int{}}}, int(text[0])
	}
	if a.first != int(text[0]) {
		a.first = -1
	}
	a.starts[text[0]] = true
	at := 0
	for i := range len(text) {
		to, ok := a.nodes[at].next[text[i]]
		if !ok {
			to = len(a.nodes)
			a.nodes = append(a.nodes, node{next: map[byte]int{}})
			a.nodes[at].next[text[i]] = to
		}
		at = to
	}
	a.nodes[at].id, a.nodes[at].ends = id, true
}

// next returns where the first added token of text begins and ends, and its id; both len(text) where there is none.
func (a *added) next(text string) (start, end int, id uint32) {
	if len(a.nodes) == 0 {
		return len(text), len(text), 0
	}
	for at := 0; at < len(text); at++ {
		if a.first >= 0 {
			n := strings.IndexByte(text[at:], byte(a.first))
			if n < 0 {
				break
			}
			at += n
		} else if !a.starts[text[at]] {
			continue
		}
		if n, id := a.longest(text[at:]); n > 0 {
			return at, at + n, id
		}
	}
	return len(text), len(text), 0
}

// longest returns the length and id of the longest added token that text begins with; length 0 where there is none.
func (a *added) longest(text string) (length int, id uint32) {
	at := 0
	for i := range len(text) {
		to, ok := a.nodes[at].next[text[i]]
		if !ok {
			break
		}
		if at = to; a.nodes[at].ends {
			length, id = i+1, a.nodes[at].id
		}
	}
	return length, id
}
