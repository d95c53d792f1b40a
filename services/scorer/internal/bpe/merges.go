package bpe

// merges is the model: which token each byte is, and which pairs of tokens become one, in which order.
type merges struct {
	bytes [256]uint32
	whole map[string]uint32 // pieces that are known to be one token
	pairs pairs
}

// never is the rank of a pair that does not merge.
const never = ^uint32(0)

// short is the most bytes for which looking through all pairs again after each merge is cheaper than a heap.
const short = 48

// encode appends the ids of one piece of text.
func (m *merges) encode(dst []uint32, piece string) []uint32 {
	if id, ok := m.whole[piece]; ok {
		return append(dst, id)
	}
	if len(piece) <= short {
		return m.few(dst, piece)
	}
	return m.many(dst, piece)
}

// few looks for the lowest rank from the left until none is left. Square in the bytes of piece, at most short.
func (m *merges) few(dst []uint32, piece string) []uint32 {
	var (
		idSpace   [short]uint32
		nextSpace [short]merge
		ids       = idSpace[:len(piece)]
		next      = nextSpace[:len(piece)-1] // what each but the last becomes with its right neighbour
	)
	for i := range ids {
		ids[i] = m.bytes[piece[i]]
	}
	for i := range next {
		next[i] = m.pairs.of(ids[i], ids[i+1])
	}
	for {
		best, rank := -1, never
		for i := range next {
			if next[i].rank < rank {
				best, rank = i, next[i].rank
			}
		}
		if best < 0 {
			return append(dst, ids...)
		}
		ids[best] = next[best].id
		ids = append(ids[:best+1], ids[best+2:]...)
		next = append(next[:best], next[best+1:]...)
		if best < len(next) {
			next[best] = m.pairs.of(ids[best], ids[best+1])
		}
		if best > 0 {
			next[best-1] = m.pairs.of(ids[best-1], ids[best])
		}
	}
}

// symbol is a token in a list that is linked by positions; right is len(list) at the end.
type symbol struct {
	id          uint32
	left, right int
}

// candidate is a merge of the symbol at a position with its right neighbour, both as they were when it was found.
type candidate struct {
	merge
	at          int
	left, right uint32
}

// many does as few does, in n log n.
func (m *merges) many(dst []uint32, piece string) []uint32 {
	list := make([]symbol, len(piece))
	for i := range list {
		list[i] = symbol{id: m.bytes[piece[i]], left: i - 1, right: i + 1}
	}
	queue := make(candidates, 0, len(piece))
	find := func(at int) {
		if at < 0 || list[at].right == len(list) {
			return
		}
		left, right := list[at].id, list[list[at].right].id
		if found := m.pairs.of(left, right); found.rank != never {
			queue.push(candidate{found, at, left, right})
		}
	}
	for i := range list {
		find(i)
	}
	for len(queue) > 0 {
		c := queue.pop()
		s := &list[c.at]
		if s.right == len(list) || s.id != c.left || list[s.right].id != c.right {
			continue // another merge took a part of it
		}
		gone := &list[s.right]
		s.id, s.right = c.merge.id, gone.right
		gone.id = never
		if s.right < len(list) {
			list[s.right].left = c.at
		}
		find(c.at)
		find(s.left)
	}
	for at := 0; at < len(list); at = list[at].right {
		dst = append(dst, list[at].id)
	}
	return dst
}

// candidates is a heap: lowest rank first, leftmost of equals. (container/heap puts each into an interface: an allocation
// for each, and twice the time.)
type candidates []candidate

func (c candidate) before(other candidate) bool {
	return c.rank < other.rank || c.rank == other.rank && c.at < other.at
}

func (q *candidates) push(c candidate) {
	*q = append(*q, c)
	h := *q
	for i := len(h) - 1; i > 0 && h[i].before(h[(i-1)/2]); i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
}

func (q *candidates) pop() candidate {
	h := *q
	last := len(h) - 1
	first := h[0]
	h[0] = h[last]
	h = h[:last]
	*q = h
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if h[child].before(h[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
