package policy

// Reason says why an engine was chosen: a word for programs, a colon, and a sentence for people. There are few, so that
// they can be counted.
type Reason string

// The reasons of Warm.
const (
	OnlyOne          Reason = "only-one: no other engine can serve the request"
	Approximation    Reason = "approximation: the index does not answer for the engine, and the router lately sent much of the prompt there"
	NearTie          Reason = "near-tie: engines cost about the same; this one was sent the least cold work, or is the prompt's own in rendezvous order"
	Sticky           Reason = "sticky: holds the longest prefix and costs the fleet least"
	ColdSpread       Reason = "cold-spread: no engine holds half of the prompt; here it costs the fleet least"
	EvictPrice       Reason = "evict-price: another engine would be cheaper, but for the blocks that the prompt would evict there"
	CheaperElsewhere Reason = "cheaper-elsewhere: another engine holds more, but to wait or to compute there costs the fleet more"
)

// The reasons of the other policies.
const (
	NoEngine  Reason = "no-engine: nobody can serve the request"
	InTurn    Reason = "in-turn: the next one of all"
	AtRandom  Reason = "at-random: drawn"
	LeastLoad Reason = "least-load: fewest waiting tokens and active requests"
)

// reason says why j was chosen; best is the engine of least cost, free that of least cost if eviction had no price.
func (f *fleet) reason(o *Observation, costs []float64, best, free, j int) Reason {
	most := 0
	for i := range o.Candidates {
		most = max(most, held(o, &o.Candidates[i]))
	}
	chosen := &o.Candidates[j]
	switch {
	case len(o.Candidates) == 1:
		return OnlyOne
	case chosen.Guessed && chosen.Matched > 0:
		return Approximation
	case f.tied(o, costs, best, j):
		return NearTie
	case free != best:
		return EvictPrice
	case f.cold:
		return ColdSpread
	case held(o, chosen) == most:
		return Sticky
	}
	return CheaperElsewhere
}

// tied tells whether another engine costs about as little as the best, and holds as much as the chosen one.
func (f *fleet) tied(o *Observation, costs []float64, best, j int) bool {
	for i := range costs {
		if f.without&Tie == 0 && i != j && costs[i] <= costs[best]+nearTie && held(o, &o.Candidates[i]) >= held(o, &o.Candidates[j]) {
			return true
		}
	}
	return false
}
