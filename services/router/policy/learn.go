package policy

import (
	"math"
	"slices"
)

const (
	memory    = 1 - 1./48 // what one observation leaves of those before it
	prior     = 0.25      // observations that the profile itself counts for
	leastSeen = 0.1       // an observation counts as at least this part of what the profile says,
	mostLeap  = 2         // and as at most so many times what was known
	ownRate   = 0.15      // an engine that is that far off the fleet's median has its own rate
	moved     = 0.005     // a rate that has changed by less has not moved the median
)

// Rate is how much slower than the profile an engine is: 1 is as the profile says.
type Rate struct{ Prefill, Decode float64 }

// Rate is what the policy takes for an engine: the fleet's median, unless the engine is far off it. Differences of a
// percent would otherwise decide every tie between idle engines.
func (s *State) Rate(engine string) Rate {
	if s.median == (Rate{}) {
		return Rate{Prefill: 1, Decode: 1}
	}
	if own, ok := s.apart[engine]; ok {
		return own
	}
	return s.median
}

// pooled is the median, unless own is far off it.
func pooled(own, median float64) float64 {
	if math.Abs(own/median-1) <= ownRate {
		return median
	}
	return own
}

// fit is a line through what an engine took: took/known = Decode*part + Prefill*(1-part), where known is what the
// profile says of decode and prefill together, and part the share of decode in it. It is the least squares of the
// latest observations, and as both shares are often alike, drawn to the profile's own 1 by ridge regression (Hoerl and
// Kennard, 1970).
type fit struct {
	dd, dp, pp, dt, pt float64 // sums of products of decode, prefill and time taken
	rate               Rate
	counted            Rate // rate, as it was when the median was last found
}

// drifted tells whether the rate has changed since it was counted.
func (f *fit) drifted() bool {
	return math.Abs(f.rate.Prefill-f.counted.Prefill) > moved*f.counted.Prefill ||
		math.Abs(f.rate.Decode-f.counted.Decode) > moved*f.counted.Decode
}

func (f *fit) observe(decode, prefill, took float64) {
	for _, sum := range []*float64{&f.dd, &f.dp, &f.pp, &f.dt, &f.pt} {
		*sum *= memory
	}
	f.dd, f.dp, f.pp = f.dd+decode*decode, f.dp+decode*prefill, f.pp+prefill*prefill
	f.dt, f.pt = f.dt+decode*took, f.pt+prefill*took
	a, b, t, u := f.dd+prior, f.pp+prior, f.dt+prior, f.pt+prior
	det := a*b - f.dp*f.dp // above 0: prior is
	f.rate = Rate{Decode: max(leastSeen, (t*b-u*f.dp)/det), Prefill: max(leastSeen, (a*u-f.dp*t)/det)}
}

// Took learns an engine's rates from a span of time in which it did nothing but what is known: the seconds of decode
// steps and of prefills in it, as the profile says them, and the seconds that it took. Rates follow to half a percent.
// Cost: constant, but where the rate has moved by that since, linear in the engines.
func (s *State) Took(engine string, decode, prefill, took float64) {
	known := decode + prefill
	if known <= 0 || took <= 0 {
		return
	}
	if s.fits == nil {
		s.fits = make(map[string]*fit)
	}
	f := s.fits[engine]
	if f == nil {
		f = &fit{rate: s.Rate(engine)}
		s.fits[engine] = f
	}
	decode, prefill = decode/known, prefill/known
	expected := decode*f.rate.Decode + prefill*f.rate.Prefill
	f.observe(decode, prefill, min(max(took/known, leastSeen), mostLeap*expected))
	if f.drifted() {
		s.findMedian()
	}
}

// Forget drops what was learned of an engine that is gone.
func (s *State) Forget(engine string) {
	delete(s.fits, engine)
	s.findMedian()
}

// findMedian finds what engines have in common, and which are apart from it.
func (s *State) findMedian() {
	prefill, decode := make([]float64, 0, len(s.fits)), make([]float64, 0, len(s.fits))
	for _, f := range s.fits {
		f.counted = f.rate
		prefill, decode = append(prefill, f.rate.Prefill), append(decode, f.rate.Decode)
	}
	s.median = Rate{Prefill: median(prefill), Decode: median(decode)}
	clear(s.apart)
	for engine, f := range s.fits {
		rate := Rate{Prefill: pooled(f.rate.Prefill, s.median.Prefill), Decode: pooled(f.rate.Decode, s.median.Decode)}
		if rate != s.median {
			if s.apart == nil {
				s.apart = make(map[string]Rate)
			}
			s.apart[engine] = rate
		}
	}
}

// median sorts values and returns the middle one, the lower of two; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
