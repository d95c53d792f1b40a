package gates

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

const (
	prefixBlocks = 50 // of each prefix
	prefixes     = 40
	prefixesFit  = 20 // in the cache
	// cacheBlocks have room for the last blocks of 28 requests beside, which are of no use to others: 40 ln 2, as many as
	// come while 20 of 40 prefixes pass through the cache.
	cacheBlocks = prefixesFit*prefixBlocks + 28
)

// caches is gate 2.1.7: the hit ratios of an LRU cache in closed form.
func caches(rounds int) ([]Row, error) {
	rng := rand.New(rand.NewPCG(1, 1))
	even, zipf := make([]float64, prefixes), make([]float64, prefixes)
	sum := 0.
	for i := range prefixes {
		even[i] = 1. / prefixes
		zipf[i] = 1 / float64(i+1)
		sum += zipf[i]
	}
	for i := range zipf {
		zipf[i] /= sum
	}
	draw := func(p []float64) func(int) int {
		return func(int) int {
			x := rng.Float64()
			return max(0, slices.IndexFunc(p, func(q float64) bool { x -= q; return x < 0 }))
		}
	}
	evenGot, err := sequentially(20_000*rounds, draw(even))
	if err != nil {
		return nil, err
	}
	zipfGot, err := sequentially(20_000*rounds, draw(zipf))
	if err != nil {
		return nil, err
	}
	scan, err := sequentially(1000, func(i int) int { return i % (prefixesFit + 2) })
	return []Row{
		near("hit ratio of 40 equally likely prefixes, 20 of which fit", prefixesFit/float64(prefixes), evenGot, .01),
		near("hit ratio of 40 prefixes of Zipf's popularity, by Che's approximation", che(zipf), zipfGot, .02),
		near("hit ratio of a cyclic scan of 22 prefixes, 20 of which fit", 0, scan, 0),
	}, err
}

// sequentially sends n requests one after another, each of prefix pick() and one token more, and returns the hit ratio
// in tokens after the first quarter.
func sequentially(n int, pick func(i int) int) (float64, error) {
	c := enginesim.NewCore(enginesim.CoreOptions{Blocks: cacheBlocks, Hash: enginesim.QuickHash{}})
	var r enginesim.StepResult
	var warm enginesim.Stats
	for i := range n {
		if i == n/4 {
			warm = c.Stats()
		}
		if err := c.Submit(&enginesim.Request{ID: "r", Prompt: counted(pick(i)<<16, prefixBlocks*16+1), MaxTokens: 1}); err != nil {
			return 0, err
		}
		for c.Step(&r) {
		}
	}
	s := c.Stats()
	return float64(s.Hits-warm.Hits) / float64(s.Queries-warm.Queries), nil
}

// che is Che's approximation (Che, Tung and Wang, 2002) of the hit ratio of an LRU cache, for prefixes of popularity p.
// Each request also leaves one block of its own behind, which nobody hits.
func che(p []float64) float64 {
	low, high := 0., float64(cacheBlocks)
	for range 100 {
		t := (low + high) / 2
		filled := t
		for _, x := range p {
			filled += prefixBlocks * (1 - math.Exp(-x*t))
		}
		if filled > cacheBlocks {
			high = t
		} else {
			low = t
		}
	}
	hit := 0.
	for _, x := range p {
		hit += x * (1 - math.Exp(-x*low))
	}
	return hit * prefixBlocks * 16 / (prefixBlocks*16 + 1)
}

// traceIdeal is gate 2.1.8: an engine without bound hits what a trace lets it hit, to the token. published are the
// shares of blocks of 512 tokens and of tokens, to four digits; zero where nothing is published.
func traceIdeal(t workload.Trace, blocks, tokens float64) ([]Row, error) {
	asked, hit := ideal(t.Requests)
	c := enginesim.NewCore(enginesim.CoreOptions{
		Blocks: int(asked-hit)/16 + 30_000, MaxModelLen: 1 << 21, TokenBudget: 1 << 21, Hash: enginesim.QuickHash{},
	})
	var r enginesim.StepResult
	var prompt []uint32
	for i, q := range t.Requests {
		prompt = prompt[:0]
		for p := range q.Input {
			prompt = append(prompt, uint32(q.Blocks[p/workload.BlockTokens])*workload.BlockTokens+uint32(p%workload.BlockTokens))
		}
		if err := c.Submit(&enginesim.Request{ID: fmt.Sprint(i), Prompt: prompt, MaxTokens: 1}); err != nil {
			return nil, err
		}
		for c.Step(&r) {
		}
	}
	s := c.Stats()
	rows := []Row{
		near("prompt tokens", float64(asked), float64(s.Queries), 0),
		near("prompt tokens hit, against a plain map of the trace", float64(hit), float64(s.Hits), 0),
	}
	if tokens > 0 {
		const digits = .00005
		rows = append(rows, near("share of tokens hit, as published", tokens, float64(s.Hits)/float64(s.Queries), digits/tokens),
			near("share of the trace's blocks of 512 tokens seen before, as published", blocks, t.Stats().HitRatio, digits/blocks))
	}
	return rows, nil
}

// ideal returns the prompt tokens of all requests and those of them, in whole blocks of 16, that were seen before, by a
// map of what was seen of each id.
func ideal(all []workload.Request) (tokens, hits int64) {
	const size = workload.BlockTokens
	seen := map[uint64]int{}
	for _, r := range all {
		hit := 0
		for i, id := range r.Blocks {
			n := min(size, r.Input-size*i)
			got := min(seen[id]/16, n/16) * 16
			if hit += got; got < size {
				break
			}
		}
		tokens += int64(r.Input)
		hits += int64(min(hit, (r.Input-1)/16*16))
		for i, id := range r.Blocks {
			seen[id] = max(seen[id], min(size, r.Input-size*i))
		}
	}
	return tokens, hits
}
