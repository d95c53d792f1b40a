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
// steps and of prefills in it, as the profile says them, and the seconds that it took. Cost: a search and a copy in the
// engines' rates; linear in the engines, with a map look each, only where their median has moved.
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
	} else {
		s.forget(f.rate)
	}
	decode, prefill = decode/known, prefill/known
	expected := decode*f.rate.Decode + prefill*f.rate.Prefill
	f.observe(decode, prefill, min(max(took/known, leastSeen), mostLeap*expected))
	s.prefills, s.decodes = s.prefills.with(f.rate.Prefill), s.decodes.with(f.rate.Decode)
	s.compare(engine, f)
}

// Forget drops what was learned of an engine that is gone.
func (s *State) Forget(engine string) {
	f := s.fits[engine]
	if f == nil {
		return
	}
	s.forget(f.rate)
	delete(s.fits, engine)
	delete(s.apart, engine)
	s.compare("", nil)
}

func (s *State) forget(r Rate) {
	s.prefills, s.decodes = s.prefills.without(r.Prefill), s.decodes.without(r.Decode)
}

// compare finds what engines have in common, and which are apart from it, after f has changed.
func (s *State) compare(engine string, f *fit) {
	if median := (Rate{Prefill: s.prefills.median(), Decode: s.decodes.median()}); median != s.median {
		s.median = median
		for engine, f := range s.fits {
			s.part(engine, f)
		}
	} else if f != nil {
		s.part(engine, f)
	}
}

// part notes whether an engine is far off the median.
func (s *State) part(engine string, f *fit) {
	rate := Rate{Prefill: pooled(f.rate.Prefill, s.median.Prefill), Decode: pooled(f.rate.Decode, s.median.Decode)}
	if rate == s.median {
		delete(s.apart, engine)
		return
	}
	if s.apart == nil {
		s.apart = make(map[string]Rate)
	}
	s.apart[engine] = rate
}

// ascending are values in order.
type ascending []float64

func (a ascending) with(v float64) ascending {
	i, _ := slices.BinarySearch(a, v)
	return slices.Insert(a, i, v)
}

// without leaves out a value that is there.
func (a ascending) without(v float64) ascending {
	i, _ := slices.BinarySearch(a, v)
	return slices.Delete(a, i, i+1)
}

// median is the middle one, the lower of two; 0 of none.
func (a ascending) median() float64 {
	if len(a) == 0 {
		return 0
	}
	return a[(len(a)-1)/2]
}
