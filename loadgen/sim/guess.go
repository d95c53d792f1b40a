package sim

import "github.com/warmpath/warmpath/services/router/policy"

// guess is what a router believes that engines hold which does not listen to their events: the blocks of the prompts
// that it sent there, each engine's least recently sent ones forgotten first.
type guess struct {
	every int // keys that one remembered block stands for
	most  int // blocks of a prompt that are looked at
	lru   []lru
	chain []uint64 // of the prompt in hand
}

func newGuess(engines int, blocks func(engine int) int, every, most int) *guess {
	g := &guess{every: every, most: most, lru: make([]lru, engines)}
	for i := range g.lru {
		g.lru[i] = newLRU(blocks(i))
	}
	return g
}

// matched appends the share of a prompt that each candidate is believed to hold; numbers are the engines'.
func (g *guess) matched(dst []float64, keys []uint64, among []policy.Candidate, numbers map[string]int) []float64 {
	g.chain = g.chain[:0]
	for i := g.every - 1; i < len(keys) && len(g.chain) < g.most; i += g.every {
		g.chain = append(g.chain, keys[i])
	}
	for i := range among {
		e, n := numbers[among[i].Engine], 0
		for n < len(g.chain) && g.lru[e].has(g.chain[n]) {
			n++
		}
		dst = append(dst, float64(n)/float64(max(1, len(g.chain))))
	}
	return dst
}

// sent remembers that the prompt in hand went to an engine.
func (g *guess) sent(engine int) {
	for _, key := range g.chain {
		g.lru[engine].use(key)
	}
}

// forget drops an engine that is gone.
func (g *guess) forget(engine int) { g.lru[engine] = newLRU(g.lru[engine].most) }

// lru is a bounded set that forgets what was not used for longest.
type lru struct {
	most  int
	at    map[uint64]int32
	nodes []lruNode // a ring; node 0 is its head
}

type lruNode struct {
	key        uint64
	prev, next int32
}

func newLRU(most int) lru {
	return lru{most: most, at: make(map[uint64]int32), nodes: make([]lruNode, 1, 1024)}
}

func (l *lru) has(key uint64) bool {
	_, ok := l.at[key]
	return ok
}

// use makes a key the most recent one.
func (l *lru) use(key uint64) {
	i, ok := l.at[key]
	switch {
	case ok:
		l.cut(i)
	case len(l.at) < l.most:
		i = int32(len(l.nodes))
		l.nodes = append(l.nodes, lruNode{})
	default:
		i = l.nodes[0].prev
		l.cut(i)
		delete(l.at, l.nodes[i].key)
	}
	first := l.nodes[0].next
	l.nodes[i] = lruNode{key: key, prev: 0, next: first}
	l.nodes[first].prev, l.nodes[0].next = i, i
	l.at[key] = i
}

func (l *lru) cut(i int32) {
	n := l.nodes[i]
	l.nodes[n.prev].next, l.nodes[n.next].prev = n.next, n.prev
}
