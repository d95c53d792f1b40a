package enginesim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/warmpath/warmpath/loadgen/workload"
)

const prefixBlocks = 200 // of a prefix of the tests below

// sequentially sends n requests one after another, each of prefix pick() and one token more, and returns the hit ratio
// in tokens after the first quarter.
func sequentially(t *testing.T, blocks, n int, pick func(i int) int) float64 {
	t.Helper()
	c := NewCore(CoreOptions{Blocks: blocks, Hash: QuickHash{}})
	var r StepResult
	var warm Stats
	prompt := make([]uint32, prefixBlocks*16+1)
	for i := range n {
		if i == n/4 {
			warm = c.Stats()
		}
		prefix := pick(i)
		for j := range prompt {
			prompt[j] = uint32(prefix<<16 + j)
		}
		if err := c.Submit(&Request{ID: "r", Prompt: prompt, MaxTokens: 1}); err != nil {
			t.Fatal(err)
		}
		for c.Step(&r) {
		}
	}
	s := c.Stats()
	return float64(s.Hits-warm.Hits) / float64(s.Queries-warm.Queries)
}

// che is Che's approximation of the hit ratio of an LRU cache of blocks, for prefixes of popularity p. Each request
// also leaves one block of its own behind, which nobody hits.
func che(p []float64, blocks int) float64 {
	low, high := 0.0, float64(blocks)
	for range 100 {
		t := (low + high) / 2
		held := t
		for _, x := range p {
			held += prefixBlocks * (1 - math.Exp(-x*t))
		}
		if held > float64(blocks) {
			high = t
		} else {
			low = t
		}
	}
	hit := 0.0
	for _, x := range p {
		hit += x * (1 - math.Exp(-x*low))
	}
	return hit * prefixBlocks * 16 / (prefixBlocks*16 + 1)
}

// The closed forms of an LRU cache.
func TestCacheClosedForms(t *testing.T) {
	const prefixes, fit = 40, 20
	rnd := rand.New(rand.NewPCG(1, 1))
	even, zipf := make([]float64, prefixes), make([]float64, prefixes)
	sum := 0.0
	for i := range prefixes {
		even[i] = 1.0 / prefixes
		zipf[i] = 1 / float64(i+1)
		sum += zipf[i]
	}
	for i := range zipf {
		zipf[i] /= sum
	}
	draw := func(p []float64) func(int) int {
		return func(int) int {
			x := rnd.Float64()
			return max(0, slices.IndexFunc(p, func(q float64) bool { x -= q; return x < 0 }))
		}
	}
	if got, want := sequentially(t, fit*prefixBlocks, 8000, draw(even)), float64(fit)/prefixes; math.Abs(got/want-1) > 0.01 {
		t.Errorf("even: hit ratio %.4f, want %.4f", got, want)
	}
	if got, want := sequentially(t, fit*prefixBlocks, 8000, draw(zipf)), che(zipf, fit*prefixBlocks); math.Abs(got/want-1) > 0.02 {
		t.Errorf("zipf: hit ratio %.4f, want %.4f", got, want)
	}
	if got := sequentially(t, fit*prefixBlocks, 1000, func(i int) int { return i % (fit + 2) }); got != 0 {
		t.Errorf("cyclic scan: hit ratio %.4f, want 0", got)
	}
}

// conversation is the public trace where it is at hand; else a small stand-in is made.
func conversation(t *testing.T) (all []workload.Request, genuine bool) {
	t.Helper()
	path, ok := workload.Find(".")
	if !ok {
		return standIn(), false
	}
	trace, err := workload.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return trace.Requests, true
}

// standIn makes 300 conversations of 4 turns that share their first block.
func standIn() (all []workload.Request) {
	next := uint64(1)
	for range 300 {
		r := workload.Request{Blocks: []uint64{0}}
		for range 4 {
			for range 5 {
				r.Blocks = append(r.Blocks, next)
				next++
			}
			r.Input = len(r.Blocks)*512 - int(next%512)
			all = append(all, workload.Request{Input: r.Input, Blocks: slices.Clone(r.Blocks)})
		}
	}
	return all
}

// ideal returns the prompt tokens of all requests and those of them in blocks of 16 that an unlimited cache holds, by
// a map of what was seen of each id.
func ideal(all []workload.Request) (tokens, hits int64) {
	seen := map[uint64]int{}
	for _, r := range all {
		hit := 0
		for i, id := range r.Blocks {
			n := min(512, r.Input-512*i)
			got := min(seen[id]/16, n/16) * 16
			if hit += got; got < 512 {
				break
			}
		}
		tokens += int64(r.Input)
		hits += int64(min(hit, (r.Input-1)/16*16))
		for i, id := range r.Blocks {
			seen[id] = max(seen[id], min(512, r.Input-512*i))
		}
	}
	return tokens, hits
}

// An unlimited cache reaches the ideal of the trace, to the token.
func TestTraceIdeal(t *testing.T) {
	all, genuine := conversation(t)
	if testing.Short() || raceDetector {
		all, genuine = standIn(), false
	}
	tokens, hits := ideal(all)
	if genuine && math.Abs(float64(hits)/float64(tokens)-0.3736) > 0.0001 {
		t.Fatalf("ideal of the trace is %.4f, published as 0.3736", float64(hits)/float64(tokens))
	}
	c := NewCore(CoreOptions{Blocks: int(tokens-hits)/16 + 30_000, MaxModelLen: 1 << 20, TokenBudget: 1 << 20, Hash: QuickHash{}})
	var r StepResult
	var prompt []uint32
	for i, q := range all {
		prompt = prompt[:0]
		for p := range q.Input {
			prompt = append(prompt, uint32(q.Blocks[p/512])<<9|uint32(p%512))
		}
		if err := c.Submit(&Request{ID: fmt.Sprint(i), Prompt: prompt, MaxTokens: 1}); err != nil {
			t.Fatal(err)
		}
		for c.Step(&r) {
		}
	}
	if s := c.Stats(); s.Queries != tokens || s.Hits != hits {
		t.Fatalf("hits %d of %d tokens, ideal %d of %d", s.Hits, s.Queries, hits, tokens)
	}
}
