package prefix

import (
	"math/bits"
	"slices"
)

// Match appends, for every known engine in order of id, how many leading keys of the chain it holds. Readers run side
// by side; Apply and they take turns. It allocates only to grow dst.
//
// Along a chain an engine holds keys in gpu memory first, then perhaps some in another tier only, then none: so
// where the sets of two keys name the same holders, so do all between. Match looks at keys 0, 1, 3, 7, ... and
// halves every stretch across which the set has lost holders, for all engines at once.
func (x *Index) Match(keys []uint64, dst []Depth) []Depth {
	x.mu.RLock()
	defer x.mu.RUnlock()
	first := len(dst)
	dst = slices.Grow(dst, len(x.order))
	for _, m := range x.order {
		dst = append(dst, Depth{Engine: m.info.ID})
	}
	if len(keys) == 0 {
		return dst
	}
	q := query{x: x, keys: keys, out: dst[first:]}
	if x.sets != nil {
		q.wide()
	} else {
		q.narrow(x.holders.mask())
	}
	return dst
}

// A query is one Match on its way.
type query struct {
	x    *Index
	keys []uint64
	out  []Depth
}

// narrow answers where a set is one word. After the first key it asks for all that it gallops over before it looks at
// any, so that the memory they lie in is fetched at once.
func (q *query) narrow(live uint64) {
	set := q.x.set(q.keys[0]) & live
	if set == 0 {
		return
	}
	var ahead [bits.UintSize]struct {
		at  int
		set uint64
	}
	n, last := 0, len(q.keys)-1
	for at, by := 0, 1; at < last; by *= 2 {
		at = min(at+by, last)
		ahead[n].at, ahead[n].set = at, q.x.set(q.keys[at])&live
		n++
	}
	at := 0
	for _, next := range ahead[:n] {
		if set&^next.set != 0 {
			q.split(at, next.at, set, next.set, live)
		}
		if at, set = next.at, next.set; set == 0 {
			return
		}
	}
	q.end(set, 0, last+1)
}

// split finds where the holders in a and not in b, the sets of keys from and to, end.
func (q *query) split(from, to int, a, b, live uint64) {
	for to-from > 1 {
		mid := int(uint(from+to) / 2)
		m := q.x.set(q.keys[mid]) & live
		if a&^m != 0 && m&^b != 0 {
			q.split(from, mid, a, m, live)
		}
		switch {
		case m&^b != 0:
			from, a = mid, m
		default:
			to, b = mid, m
		}
	}
	q.end(a&^b, 0, to)
}

// end says that these holders end before key depth. What an engine holds in another tier only ends last.
func (q *query) end(word uint64, base, depth int) {
	for ; word != 0; word &= word - 1 {
		n := holder(base + bits.TrailingZeros64(word))
		m := q.x.holders.owner[n]
		out := &q.out[m.position]
		if n == m.gpu {
			out.GPU = depth
		}
		out.Any = max(out.Any, depth)
	}
}

// wide answers where sets are shared and have many words. Rows that were written before the Index had more than 64
// holders still hold one word.
func (q *query) wide() {
	set := q.x.look(q.keys[0])
	last := len(q.keys) - 1
	for at, by := 0, 1; !set.empty(q.x); by *= 2 {
		if at == last {
			q.endWide(set, wideSet{}, last+1)
			return
		}
		to := min(at+by, last)
		next := q.x.look(q.keys[to])
		if q.x.loses(set, next) {
			q.splitWide(at, to, set, next)
		}
		at, set = to, next
	}
}

func (q *query) splitWide(from, to int, a, b wideSet) {
	for to-from > 1 {
		mid := int(uint(from+to) / 2)
		m := q.x.look(q.keys[mid])
		left, right := q.x.loses(a, m), q.x.loses(m, b)
		if left && right {
			q.splitWide(from, mid, a, m)
		}
		if right {
			from, a = mid, m
		} else {
			to, b = mid, m
		}
	}
	q.endWide(a, b, to)
}

func (q *query) endWide(a, b wideSet, depth int) {
	for i, live := range q.x.holders.live {
		q.end(a.word(q.x, i)&live&^b.word(q.x, i), 64*i, depth)
	}
}

// A wideSet is a set as a row names it: one word, or the number of a shared set.
type wideSet struct {
	set    uint64
	shared bool
}

func (w wideSet) word(x *Index, i int) uint64 {
	switch {
	case w.shared:
		if i < x.sets.stride {
			return x.sets.of(w.set)[i]
		}
	case i == 0:
		return w.set
	}
	return 0
}

func (w wideSet) empty(x *Index) bool { return !x.loses(w, wideSet{}) }

// loses reports whether a live holder is in a and not in b.
func (x *Index) loses(a, b wideSet) bool {
	if a == b {
		return false
	}
	for i, live := range x.holders.live {
		if a.word(x, i)&live&^b.word(x, i) != 0 {
			return true
		}
	}
	return false
}

// mask is the live holders of an Index with at most 64.
func (h *holders) mask() uint64 {
	if len(h.live) == 0 {
		return 0
	}
	return h.live[0]
}

// set returns what the row of a key holds, 0 without a row.
func (x *Index) set(key uint64) uint64 {
	seg, rest := spread(key)
	return x.segments[seg].get(key, rest)
}

func (x *Index) look(key uint64) wideSet {
	seg, rest := spread(key)
	s := &x.segments[seg]
	return wideSet{s.get(key, rest), s.wide}
}
