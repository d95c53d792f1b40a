package workload

import (
	"slices"
	"time"
)

// Stats describes a trace.
type Stats struct {
	Requests      int
	Duration      time.Duration // to the last arrival
	Rate          float64       // requests a second
	Input, Output Lengths       // tokens
	// HitRatio is the share of blocks that a cache without limit would have: those of each request's longest prefix
	// that came before.
	HitRatio float64
	// TokenHitRatio is the same share in prompt tokens, in whole blocks of 16 tokens.
	TokenHitRatio float64
	Distinct      int // block ids
}

// Lengths is a distribution of lengths in tokens.
type Lengths struct {
	Mean               float64
	P50, P90, P99, Max int
}

// Stats computes them; linear in the number of block ids.
func (t Trace) Stats() Stats {
	if len(t.Requests) == 0 {
		return Stats{}
	}
	var input, output []int
	var hits, blocks, hitTokens, tokens int
	seen := map[uint64]struct{}{}
	longest := map[uint64]int{} // tokens that requests had in a block, at most
	for _, r := range t.Requests {
		input, output = append(input, r.Input), append(output, r.Output)
		n := 0
		for n < len(r.Blocks) && has(seen, r.Blocks[n]) {
			hitTokens += min(longest[r.Blocks[n]], r.Input-n*BlockTokens) / 16 * 16
			n++
		}
		hits, blocks, tokens = hits+n, blocks+len(r.Blocks), tokens+r.Input
		for i, id := range r.Blocks {
			seen[id] = struct{}{}
			longest[id] = max(longest[id], min(BlockTokens, r.Input-i*BlockTokens))
		}
	}
	s := Stats{Requests: len(t.Requests), Duration: t.Requests[len(t.Requests)-1].At, Distinct: len(seen)}
	s.Input, s.Output = lengths(input), lengths(output)
	s.HitRatio, s.TokenHitRatio = float64(hits)/float64(blocks), float64(hitTokens)/float64(tokens)
	if s.Duration > 0 {
		s.Rate = float64(s.Requests) / s.Duration.Seconds()
	}
	return s
}

func has(set map[uint64]struct{}, id uint64) bool {
	_, ok := set[id]
	return ok
}

func lengths(values []int) Lengths {
	slices.Sort(values)
	sum := 0
	for _, v := range values {
		sum += v
	}
	at := func(q float64) int { return values[min(len(values)-1, int(q*float64(len(values))))] }
	return Lengths{Mean: float64(sum) / float64(len(values)), P50: at(.5), P90: at(.9), P99: at(.99), Max: values[len(values)-1]}
}
