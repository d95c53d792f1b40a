// Package policy chooses an engine for a request.
//
// Pick is a pure function of what the router knows: learned rates (State), the request and each engine's load
// (Observation), and a random number. Costs are seconds of the whole fleet, not of the one request. The router and the
// simulator run the same code.
//
// It has no clock, no I/O, no locks and no memory of its own, knows no proto and no HTTP, and does not decide whether a
// request is admitted: someone is always chosen.
package policy

import (
	"fmt"
	"math"
)

// Name is a policy's name.
type Name string

// The policies.
const (
	Warm        Name = "warm"         // least marginal cost of the fleet, in seconds
	RoundRobin  Name = "round-robin"  // each in turn
	LeastTokens Name = "least-tokens" // fewest waiting prompt tokens + 100 for each active request
	Random      Name = "random"       // any
)

// Parse reads a policy's name; empty is Warm.
func Parse(name string) (Name, error) {
	switch n := Name(name); n {
	case "":
		return Warm, nil
	case Warm, RoundRobin, LeastTokens, Random:
		return n, nil
	}
	return "", fmt.Errorf("policy %q is none of warm, round-robin, least-tokens, random", name)
}

// Observation is all that a policy may see of a request and the fleet.
type Observation struct {
	Now          float64 // seconds on the clock of Candidate's times
	PromptTokens int     // length of the prompt, or an estimate
	BlockSize    int     // tokens per block; 0 is 16
	FirstKey     uint64  // first block key (or piece hash) of the prompt; 0 is none
	Turn         uint64  // how many picks came before, for round-robin
	Sharing      int     // requests in flight that share half of the best match; 0 when not known
	Candidates   []Candidate
}

// Candidate is an engine that may be chosen, with the router's own ledger of it. Zero capacity is unknown capacity.
type Candidate struct {
	Engine  string
	Matched int  // tokens of the prompt's head that it will hold when its turn comes: that it holds, or that placed requests compute
	Placed  int  // of these, those that only placed requests speak for
	Leaving int  // tokens after these that it holds, or that placed requests compute, but will have evicted by then
	Guessed bool // Matched is the router's own approximation: nobody answers for the engine

	Active        int // requests not finished
	Waiting       int // of these, without a first byte
	DecodeContext int // context tokens of decoding sequences
	WaitContext   int // prompt tokens of waiting requests
	Uncached      int // of these, to be computed here: not cached at dispatch
	Coming        int // of these, computed by a prefill engine and not here yet

	WaitSeconds   float64 // prefill seconds of waiting requests, summed
	OldestSent    float64 // time when the oldest waiting request was sent
	OldestSeconds float64 // its prefill seconds
	LastFirst     float64 // time of the engine's last first byte

	Blocks   int     // capacity of the cache
	Mapped   int     // blocks that hold something
	Usage    float64 // share of blocks in use by running requests, as the engine's last scrape said; 0 is not known
	Queued   int     // waiting requests as the engine's last scrape said; 0 is not known
	Evicted  bool    // it has evicted blocks
	ColdWork float64 // uncached tokens sent to it, decayed over 30 s
	Both     bool    // its role is both: it decodes, and computes prompts for decode engines too
}

// Choice is a policy's answer.
type Choice struct {
	Index  int       // into Observation.Candidates; -1 without candidates
	Costs  []float64 // for each candidate; seconds for Warm, tokens for LeastTokens, none for the others
	Reason Reason
}

// Pick chooses among o.Candidates. Equal arguments give equal choices; random is any 64 bits. The costs are appended
// to costs[:0]. Cost: linear in the candidates, no other allocation.
func Pick(name Name, s *State, o *Observation, random uint64, costs []float64) Choice {
	n := uint64(len(o.Candidates))
	if n == 0 {
		return Choice{Index: -1, Reason: NoEngine}
	}
	switch name {
	case RoundRobin:
		return Choice{Index: int(o.Turn % n), Reason: InTurn}
	case Random:
		return Choice{Index: int(random % n), Reason: AtRandom}
	case LeastTokens:
		return leastTokens(o, random, costs[:0])
	}
	return warm(s, o, random, costs[:0], 0)
}

func leastTokens(o *Observation, random uint64, costs []float64) Choice {
	best, least := 0, math.Inf(1)
	var rank uint64
	for i := range o.Candidates {
		c := &o.Candidates[i]
		cost := float64(c.WaitContext + 100*c.Active)
		costs = append(costs, cost)
		if r := weight(random, c.Engine); cost < least || cost == least && r > rank {
			best, least, rank = i, cost, r
		}
	}
	return Choice{Index: best, Costs: costs, Reason: LeastLoad}
}

// weight is an engine's place in the rendezvous order of a key: FNV-1a of both with a final mix.
func weight(key uint64, engine string) uint64 {
	h := uint64(14695981039346656037) ^ key
	for i := range len(engine) {
		h = (h ^ uint64(engine[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
