// Package decide says how many engines of each role a pool needs, and why.
//
// It is pure: state and observation in, state and decision out; the time is an argument. It knows no router, no engine
// and no Kubernetes, acts on nothing, and never takes what is missing for zero: without figures it keeps what it said.
package decide

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Role is what an engine is used for.
type Role string

// The roles. A pool has engines for Both, or some for Prefill and some for Decode.
const (
	Prefill Role = "prefill"
	Decode  Role = "decode"
	Both    Role = "both"
)

// Policy is what an operator may set; a zero field means its default.
type Policy struct {
	Window   time.Duration // demand is the mean over it; default 60 s
	Hold     time.Duration // the greatest need within it counts; default 300 s
	Headroom float64       // factor on the need; default 1.15
	Prefill  float64       // uncached prompt tokens/s of one replica until learned; default 16,000
	Decode   float64       // output tokens/s of one replica until learned; default 3,000
}

// Observation is what is known of a pool at one time.
type Observation struct {
	// Blind says why the figures below cannot be relied upon, such as a router that does not report; empty if they can.
	Blind    string
	Uncached float64 // prompt tokens computed since any one time: it may only grow
	Output   float64 // tokens generated, likewise
	Queued   float64 // requests that wait for an engine now
	Replicas map[Role]int
}

// Decision is how many replicas a pool should have. Roles that are not in Desired are none of its business.
type Decision struct {
	Desired  map[Role]int
	Held     bool    // made without figures: Desired is the decision before, or what there is
	Uncached float64 // demand in tokens/s; zero in a held decision, which does not know it
	Output   float64
	Why      string // for people
}

// State is what Decide remembers. The zero State with any Policy is the beginning.
type State struct {
	Policy  Policy
	rates   rates
	samples []sample // over the window, oldest first
	needs   []need   // over the hold, oldest first
	desired map[Role]int
}

// rates are what one replica does in a second; zero until first used.
type rates struct{ prefill, decode float64 }

type sample struct {
	at               time.Time
	uncached, output float64
}

// need is how many busy replicas the demand came to, in parts, at one time.
type need struct {
	at              time.Time
	prefill, decode float64
}

// Decide folds an observation in. It changes neither s nor o.
func (s State) Decide(o Observation, now time.Time) (State, Decision) {
	s.Policy = s.Policy.complete()
	if s.rates == (rates{}) {
		s.rates = rates{s.Policy.Prefill, s.Policy.Decode}
	}
	if o.Blind != "" {
		return s.hold(o, o.Blind)
	}
	s = s.remember(o, now)
	first, last := s.samples[0], s.samples[len(s.samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds < s.Policy.Window.Seconds()/4 {
		return s.hold(o, fmt.Sprintf("demand is known for %.0f s only", seconds))
	}
	uncached, output := (last.uncached-first.uncached)/seconds, (last.output-first.output)/seconds
	s.rates = s.rates.learn(s.Policy, o, uncached, output)
	s.needs = append(after(s.needs, now.Add(-s.Policy.Hold), func(n need) time.Time { return n.at }),
		need{now, uncached / s.rates.prefill, output / s.rates.decode})
	d := Decision{Uncached: uncached, Output: output}
	d.Desired, d.Why = s.size(o)
	d.Why += fmt.Sprintf("; demand %.0f uncached and %.0f output tokens/s", uncached, output)
	s.desired = d.Desired
	return s, d
}

// hold keeps the last decision or, where there is none yet, what there is.
func (s State) hold(o Observation, why string) (State, Decision) {
	desired := s.desired
	if desired == nil {
		desired = o.Replicas
	}
	return s, Decision{Desired: maps.Clone(desired), Held: true, Why: "hold: " + why}
}

// remember adds a sample. Totals that fall, or a clock that stands still, begin the window anew.
func (s State) remember(o Observation, now time.Time) State {
	kept := after(s.samples, now.Add(-s.Policy.Window), func(x sample) time.Time { return x.at })
	if n := len(kept); n > 0 && (!now.After(kept[n-1].at) || o.Uncached < kept[n-1].uncached || o.Output < kept[n-1].output) {
		kept = nil
	}
	kept = append(kept, sample{now, o.Uncached, o.Output})
	s.samples = kept
	return s
}

// learn moves the rate of the busier role towards what its replicas do while requests queue: only then is what they do
// what they can. A step is 5 %, and a rate stays within a quarter and four times the initial one.
func (r rates) learn(p Policy, o Observation, uncached, output float64) rates {
	prefill, decode := o.Replicas[Prefill], o.Replicas[Decode]
	if o.Queued <= 0 || prefill == 0 || decode == 0 || uncached <= 0 || output <= 0 {
		return r // engines for both say nothing of either rate
	}
	perPrefill, perDecode := uncached/float64(prefill), output/float64(decode)
	step := func(rate *float64, seen, initial float64) {
		*rate = min(max(*rate+.05*(seen-*rate), initial/4), initial*4)
	}
	if perPrefill/r.prefill > perDecode/r.decode {
		step(&r.prefill, perPrefill, p.Prefill)
	} else {
		step(&r.decode, perDecode, p.Decode)
	}
	return r
}

// size turns the greatest needs within the hold into replicas, at least one of a role. Where engines are split by role,
// those for both are a reserve that is not counted.
func (s State) size(o Observation) (map[Role]int, string) {
	parts := map[Role]func(need) float64{Both: func(n need) float64 { return n.prefill + n.decode }}
	if o.Replicas[Prefill]+o.Replicas[Decode] > 0 {
		parts = map[Role]func(need) float64{
			Prefill: func(n need) float64 { return n.prefill },
			Decode:  func(n need) float64 { return n.decode },
		}
	}
	desired := make(map[Role]int)
	var words []string
	for _, role := range slices.Sorted(maps.Keys(parts)) {
		most, last := need{}, s.needs[len(s.needs)-1]
		for _, n := range s.needs {
			if parts[role](n) >= parts[role](most) {
				most = n
			}
		}
		desired[role] = max(1, int(math.Ceil(parts[role](most)*s.Policy.Headroom)))
		words = append(words, fmt.Sprintf("%s %d (has %d): %.2f busy x %.2f headroom%s", role, desired[role],
			o.Replicas[role], parts[role](most), s.Policy.Headroom, ago(last.at.Sub(most.at))))
	}
	return desired, strings.Join(words, ", ")
}

func ago(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return fmt.Sprintf(", needed %.0f s ago", d.Seconds())
}

// after returns a copy of the elements at or after a time.
func after[T any](all []T, from time.Time, at func(T) time.Time) []T {
	i := slices.IndexFunc(all, func(x T) bool { return !at(x).Before(from) })
	if i < 0 {
		return nil
	}
	return slices.Clone(all[i:])
}

func (p Policy) complete() Policy {
	or := func(v *float64, usual float64) {
		if *v <= 0 {
			*v = usual
		}
	}
	if p.Window <= 0 {
		p.Window = time.Minute
	}
	if p.Hold <= 0 {
		p.Hold = 5 * time.Minute
	}
	or(&p.Headroom, 1.15)
	// One two-GPU replica of the reference model: t = .015 + u/16,000 s, and 98 sequences of 2,000 tokens at 30 ms.
	or(&p.Prefill, 16_000)
	or(&p.Decode, 3_000)
	return p
}
