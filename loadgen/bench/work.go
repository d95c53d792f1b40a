package bench

import (
	"fmt"
	"math/rand/v2"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/prefix"
)

const (
	chainLength = 500 // blocks of a prompt
	shared      = 350 // of them, in common with three other prompts
	runLength   = 32  // blocks of an event where events are timed
)

func engineName(n int) string { return fmt.Sprintf("10.0.%d.%d:8000", n/250, n%250+1) }

// chain is a prompt: the blocks of its tokens, and the hashes under which engines announce them.
type chain struct {
	tokens       []uint32
	keys, hashes []uint64
}

func newChain(tokens []uint32) chain {
	c := chain{tokens: tokens, keys: blockkey.Keys(nil, scope(), tokens, nil)}
	for _, key := range c.keys {
		c.hashes = append(c.hashes, key*0x9e3779b97f4a7c15+1) // one to one, and no key
	}
	return c
}

// store is the event that announces blocks from..to.
func (c *chain) store(engine string, from, to int) *Step {
	s := &Step{
		Engine: engine, Tokens: c.tokens[from*blockSize : to*blockSize],
		Run: prefix.Run{
			Copy: prefix.Added, GPU: prefix.Added, Any: prefix.Added, BlockSize: blockSize,
			Hashes: c.hashes[from:to], Keys: c.keys[from:to],
		},
	}
	if from > 0 {
		s.Run.Parent, s.Run.HasParent = c.hashes[from-1], true
	}
	return s
}

// remove is the event that takes blocks from..to away, the deepest first, as vLLM evicts.
func (c *chain) remove(engine string, from, to int) *Step {
	s := &Step{Engine: engine, Run: prefix.Run{Copy: prefix.Removed, GPU: prefix.Removed, Any: prefix.Removed}}
	for i := to - 1; i >= from; i-- {
		s.Run.Hashes, s.Run.Keys = append(s.Run.Hashes, c.hashes[i]), append(s.Run.Keys, c.keys[i])
	}
	return s
}

// work is what all rivals are given.
type work struct {
	chains []chain // prompts of which four at a time share the first 350 blocks
	misses []chain // prompts that nobody holds
	short  []chain // prompts of one event
	order  []int   // of the chains, at random
	rows   int     // different blocks of the chains
}

func newWork(rows int) *work {
	r := rand.New(rand.NewPCG(1, 2))
	w := &work{}
	for w.rows < rows {
		first := newChain(randomTokens(r, chainLength))
		w.chains = append(w.chains, first)
		for range 3 {
			tokens := randomTokens(r, chainLength)
			copy(tokens, first.tokens[:shared*blockSize])
			w.chains = append(w.chains, newChain(tokens))
		}
		w.rows += chainLength + 3*(chainLength-shared)
	}
	for range min(len(w.chains), 1024) {
		w.misses = append(w.misses, newChain(randomTokens(r, chainLength)))
	}
	for range rows / runLength {
		w.short = append(w.short, newChain(randomTokens(r, runLength)))
	}
	w.order = r.Perm(len(w.chains))
	return w
}

// keys is the i-th query, over and over, at random.
func (w *work) keys(i int) []uint64 { return w.chains[w.order[i%len(w.order)]].keys }

// fill lets so many engines hold all chains, each down to its own depth.
func (w *work) fill(x Index, engines int, depth func(engine int) int) {
	for i := range w.chains {
		for e := range engines {
			from, to := 0, depth(e)
			if i%4 != 0 {
				from = min(shared, to)
			}
			if from < to {
				x.Apply(w.chains[i].store(engineName(e), from, to))
			}
		}
	}
}
