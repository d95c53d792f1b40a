package enginesim

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
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

// Invariant 7: the closed forms of an LRU cache.
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

// traced is a request of the Mooncake conversation trace: ids name blocks of 512 tokens, the last perhaps partial.
type traced struct {
	Input int      `json:"input_length"`
	IDs   []uint32 `json:"hash_ids"`
}

// conversation is beside the repository where the traces are; else a small stand-in is made.
func conversation(t *testing.T) (all []traced, genuine bool) {
	t.Helper()
	f, err := os.Open("../../../shared/traces/mooncake_conversation.jsonl.gz")
	if err != nil {
		return standIn(), false
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(z); lines.Scan(); {
		var r traced
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all, true
}

// standIn makes 300 conversations of 4 turns that share their first block.
func standIn() (all []traced) {
	next := uint32(1)
	for range 300 {
		r := traced{IDs: []uint32{0}}
		for range 4 {
			for range 5 {
				r.IDs = append(r.IDs, next)
				next++
			}
			r.Input = len(r.IDs)*512 - int(next%512)
			all = append(all, traced{r.Input, slices.Clone(r.IDs)})
		}
	}
	return all
}

// ideal returns the prompt tokens of all requests and those of them in blocks of 16 that an unlimited cache holds, by
// a map of what was seen of each id.
func ideal(all []traced) (tokens, hits int64) {
	seen := map[uint32]int{}
	for _, r := range all {
		hit := 0
		for i, id := range r.IDs {
			n := min(512, r.Input-512*i)
			got := min(seen[id]/16, n/16) * 16
			if hit += got; got < 512 {
				break
			}
		}
		tokens += int64(r.Input)
		hits += int64(min(hit, (r.Input-1)/16*16))
		for i, id := range r.IDs {
			seen[id] = max(seen[id], min(512, r.Input-512*i))
		}
	}
	return tokens, hits
}

// Invariant 8: an unlimited cache reaches the ideal of the trace, to the token.
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
			prompt = append(prompt, q.IDs[p/512]<<9|uint32(p%512))
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
