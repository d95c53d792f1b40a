// Package lru is a bounded set of 64-bit keys that forgets the one that was used longest ago.
//
// It holds no values and knows no time; the caller hashes, locks and counts.
package lru

// Set is the set. Its zero value holds nothing and has no room. Not safe for several goroutines.
type Set struct {
	most  int
	at    map[uint64]int32
	nodes []node // a ring in order of use; node 0 is its head
}

type node struct {
	key        uint64
	prev, next int32
}

// New is a set of at most so many keys. It takes memory as it grows: about 50 B a key.
func New(most int) Set {
	return Set{most: max(0, most), at: make(map[uint64]int32), nodes: make([]node, 1)}
}

// Most is how many keys the set holds at most.
func (s *Set) Most() int { return s.most }

// Len is how many keys are held.
func (s *Set) Len() int { return len(s.at) }

// Has says whether a key is held. It is no use of it.
func (s *Set) Has(key uint64) bool {
	_, ok := s.at[key]
	return ok
}

// Use makes a key the latest one; where there is no room for it, the one that was used longest ago goes. Cost: one look
// into a map, and two writes where the key was not held.
func (s *Set) Use(key uint64) {
	i, ok := s.at[key]
	switch {
	case ok:
		s.cut(i)
	case len(s.at) < s.most:
		i = int32(len(s.nodes))
		s.nodes = append(s.nodes, node{})
	case s.most == 0:
		return
	default:
		i = s.nodes[0].prev
		s.cut(i)
		delete(s.at, s.nodes[i].key)
	}
	first := s.nodes[0].next
	s.nodes[i] = node{key: key, next: first}
	s.nodes[first].prev, s.nodes[0].next = i, i
	s.at[key] = i
}

func (s *Set) cut(i int32) {
	n := s.nodes[i]
	s.nodes[n.prev].next, s.nodes[n.next].prev = n.next, n.prev
}
