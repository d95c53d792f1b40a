package policy

import (
	"math"
	"slices"
)

const (
	rateShare  = 1. / 32 // weight of one observation
	leastRate  = 0.1
	mostLeap   = 4    // an observation counts as at most so many times what was known
	ownRate    = 0.15 // an engine that is that far off the fleet's median has its own rate
	leastLearn = 512  // uncached tokens; a shorter prefill says little
)

// Rate is how much slower than the profile an engine is: 1 is as the profile says.
type Rate struct{ Prefill, Decode float64 }

// Rate is what the policy takes for an engine: the fleet's median, unless the engine is far off it. Differences of a
// percent would otherwise decide every tie between idle engines.
func (s *State) Rate(engine string) Rate {
	own := s.rates[engine]
	return Rate{Prefill: pooled(own.Prefill, s.median.Prefill), Decode: pooled(own.Decode, s.median.Decode)}
}

func pooled(own, median float64) float64 {
	switch {
	case median == 0:
		return 1
	case own == 0, math.Abs(own/median-1) <= ownRate:
		return median
	}
	return own
}

// FirstByte learns the prefill rate of an engine from a request that found no other waiting there: the time to its
// first byte, the part of it that were steps, and the prefill seconds that the profile says. Short prompts are ignored.
func (s *State) FirstByte(engine string, ttft, steps, seconds float64, uncached int) {
	if uncached < leastLearn || seconds <= 0 {
		return
	}
	s.learn(engine, func(r *Rate) { r.Prefill = blend(r.Prefill, (ttft-steps)/seconds) })
}

// Gap learns the decode rate of an engine from a median gap between two tokens and the gap that the profile says.
func (s *State) Gap(engine string, gap, model float64) {
	if gap <= 0 || model <= 0 {
		return
	}
	s.learn(engine, func(r *Rate) { r.Decode = blend(r.Decode, gap/model) })
}

func blend(known, seen float64) float64 {
	if known == 0 {
		known = 1
	}
	return known + (min(max(seen, leastRate), mostLeap*known)-known)*rateShare
}

// Forget drops what was learned of an engine that is gone.
func (s *State) Forget(engine string) {
	delete(s.rates, engine)
	s.findMedian()
}

func (s *State) learn(engine string, change func(*Rate)) {
	if s.rates == nil {
		s.rates = make(map[string]Rate)
	}
	r := s.rates[engine]
	change(&r)
	s.rates[engine] = r
	s.findMedian()
}

func (s *State) findMedian() {
	prefill, decode := make([]float64, 0, len(s.rates)), make([]float64, 0, len(s.rates))
	for _, r := range s.rates {
		if r.Prefill > 0 {
			prefill = append(prefill, r.Prefill)
		}
		if r.Decode > 0 {
			decode = append(decode, r.Decode)
		}
	}
	s.median = Rate{Prefill: Median(prefill), Decode: Median(decode)}
}

// Median sorts values and returns the middle one, the lower of two; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
