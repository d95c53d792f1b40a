package sim

import (
	"github.com/warmpath/warmpath/libs/lru"
	"github.com/warmpath/warmpath/services/router/policy"
)

// guess is what a router believes that engines hold which does not listen to their events: the blocks of the prompts
// that it sent there, each engine's least recently sent ones forgotten first.
type guess struct {
	every   int       // keys that one remembered block stands for
	most    int       // blocks of a prompt that are looked at
	engines []lru.Set // what each was sent
	chain   []uint64  // of the prompt in hand
}

func newGuess(engines int, blocks func(engine int) int, every, most int) *guess {
	g := &guess{every: every, most: most, engines: make([]lru.Set, engines)}
	for i := range g.engines {
		g.engines[i] = lru.New(blocks(i))
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
		for n < len(g.chain) && g.engines[e].Has(g.chain[n]) {
			n++
		}
		dst = append(dst, float64(n)/float64(max(1, len(g.chain))))
	}
	return dst
}

// sent remembers that the prompt in hand went to an engine.
func (g *guess) sent(engine int) {
	for _, key := range g.chain {
		g.engines[engine].Use(key)
	}
}

// forget drops an engine that is gone.
func (g *guess) forget(engine int) { g.engines[engine] = lru.New(g.engines[engine].Most()) }
