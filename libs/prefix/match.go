package prefix

import "math/bits"

// Match appends, for every known engine in order of id, how many leading keys of the chain it holds. It takes no lock
// and allocates only to grow dst. Beside a writer each depth lies between the least and the greatest that the engine
// had while Match ran: the key before it was seen held, and the key at it was seen not held, in any tier for Any.
//
// Along a chain an engine holds keys in gpu memory first, then perhaps some in another tier only, then none: so
// where the sets of two keys name the same holders, so do all between. Match looks at keys 0, 1, 3, 7, ... and
// halves every stretch across which the set has lost holders, for all engines at once.
func (x *Index) Match(keys []uint64, dst []Depth) []Depth {
	mark := x.epochs.enter()
	defer mark.Add(-1)
	first := len(dst)
	for {
		r := x.roster.Load()
		pause()
		dst = append(dst[:first], r.blank...)
		if len(keys) == 0 {
			return dst
		}
		q := query{x: x, r: r, keys: keys, out: dst[first:]}
		if len(r.live) > 1 {
			q.wide()
		} else {
			q.narrow()
		}
		// An engine that has got its second holder meanwhile may have moved keys to it, where this roster does not
		// look. That happens to an engine once, when it first shows a key in another tier.
		if x.roster.Load().tiers == r.tiers {
			return dst
		}
	}
}

// A query is one Match on its way.
type query struct {
	x    *Index
	r    *roster
	keys []uint64
	out  []Depth
}

// A probe is a key of the chain and the set of its holders.
type probe struct {
	at  int
	set uint64
}

// A stretch lies between two probes of which the second has lost holders of the first.
type stretch struct{ from, to probe }

// narrow answers where all holders are in one word. After the first key it asks for all that it gallops over before it
// compares any, so that the memory they lie in is fetched at once.
func (q *query) narrow() {
	live := q.r.mask()
	set := q.x.set(q.keys[0]) & live
	if set == 0 {
		return
	}
	var gallop [bits.UintSize]probe
	n, last := 0, len(q.keys)-1
	for at, by := 0, 1; at < last; by *= 2 {
		at = min(at+by, last)
		gallop[n] = probe{at, q.x.set(q.keys[at]) & live}
		n++
	}
	from := probe{0, set}
	for i, to := range gallop[:n] {
		if from.set&^to.set != 0 {
			q.split(from, gallop[i:n], live)
			return
		}
		from = to
	}
	q.end(from.set, 0, last+1)
}

// split finds where holders end that a gallop has lost on its way.
func (q *query) split(from probe, gallop []probe, live uint64) {
	var found [bits.UintSize]stretch
	n := 0
	for _, to := range gallop {
		if from.set&^to.set != 0 {
			found[n] = stretch{from, to}
			n++
		}
		if from = to; from.set == 0 {
			break
		}
	}
	q.end(from.set, 0, from.at+1)
	q.halve(found[:n], live)
}

// halve finds where holders end within stretches, many stretches at a time, so that their memory is fetched at once.
func (q *query) halve(found []stretch, live uint64) {
	var todo [64]stretch
	var batch [16]stretch
	n := 0
	add := func(from, to probe) {
		switch lost := from.set &^ to.set; {
		case lost == 0:
		case to.at-from.at == 1:
			q.end(lost, 0, to.at)
		case n < len(todo):
			todo[n] = stretch{from, to}
			n++
		default: // only where engines come and go while we look
			q.halve([]stretch{{from, to}}, live)
		}
	}
	for _, s := range found {
		add(s.from, s.to)
	}
	for n > 0 {
		k := copy(batch[:], todo[max(0, n-len(batch)):n])
		n -= k
		for _, s := range batch[:k] {
			q.x.touch(q.keys[int(uint(s.from.at+s.to.at)/2)])
		}
		for _, s := range batch[:k] {
			mid := probe{at: int(uint(s.from.at+s.to.at) / 2)}
			mid.set = q.x.set(q.keys[mid.at]) & live
			add(s.from, mid)
			add(mid, s.to)
		}
	}
}

// end says that these holders end before key depth. What an engine holds in another tier only ends last.
func (q *query) end(word uint64, base, depth int) {
	for ; word != 0; word &= word - 1 {
		s := q.r.seats[base+bits.TrailingZeros64(word)]
		out := &q.out[s.position]
		if s.gpu {
			out.GPU = depth
		}
		out.Any = max(out.Any, depth)
	}
}

// wide answers where sets are shared and have many words. Rows that were written while the Index had at most 64 holders
// still hold one word.
func (q *query) wide() {
	set := q.look(q.keys[0])
	last := len(q.keys) - 1
	for at, by := 0, 1; q.loses(set, wideSet{}); by *= 2 {
		if at == last {
			q.endWide(set, wideSet{}, last+1)
			return
		}
		to := min(at+by, last)
		next := q.look(q.keys[to])
		if q.loses(set, next) {
			q.splitWide(at, to, set, next)
		}
		at, set = to, next
	}
}

func (q *query) splitWide(from, to int, a, b wideSet) {
	for to-from > 1 {
		mid := int(uint(from+to) / 2)
		m := q.look(q.keys[mid])
		left, right := q.loses(a, m), q.loses(m, b)
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
	for i, live := range q.r.live {
		q.end(a.word(i)&live&^b.word(i), 64*i, depth)
	}
}

// A wideSet is a set as a row names it: one word, or the words of a shared set.
type wideSet struct {
	one    uint64
	shared []uint64
}

func (w *wideSet) word(i int) uint64 {
	switch {
	case i < len(w.shared):
		return w.shared[i]
	case i == 0:
		return w.one
	}
	return 0
}

// loses reports whether a live holder is in a and not in b.
func (q *query) loses(a, b wideSet) bool {
	if len(a.shared) > 0 && len(b.shared) > 0 && &a.shared[0] == &b.shared[0] {
		return false
	}
	for i, live := range q.r.live {
		if a.word(i)&live&^b.word(i) != 0 {
			return true
		}
	}
	return false
}

// touch begins to fetch the row of a key.
func (x *Index) touch(key uint64) {
	seg, word := spread(key)
	x.tables[seg].Load().touch(word)
}

// set returns what the row of a key says of the first 64 holders, 0 without a row.
func (x *Index) set(key uint64) uint64 {
	seg, word := spread(key)
	t := x.tables[seg].Load()
	set := t.get(word)
	if t.sets == nil {
		return set
	}
	pause()
	return t.sets.shared.Load().of(set)[0]
}

func (q *query) look(key uint64) wideSet {
	seg, word := spread(key)
	t := q.x.tables[seg].Load()
	set := t.get(word)
	if t.sets == nil {
		return wideSet{one: set}
	}
	pause()
	return wideSet{shared: t.sets.shared.Load().of(set)}
}
