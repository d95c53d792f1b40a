package policy

import "math"

const (
	splitAt = 512 // uncached tokens from which a policy without prices has them computed elsewhere, as llm-d advises

	// The time of KV between two engines before any was seen: 262,144 bytes a token at 70 GB/s, behind a set-up.
	transferSetup = 0.001
	transferToken = 262_144 / 70e9

	// StepsAround is how many steps of the decode engine pass beside the transfer before the first token: half of one
	// until the prompt has its blocks, half of one until a step begins behind the transfer, and that step.
	StepsAround = 2
)

// Pair is who decodes a request and who computes its prompt.
type Pair struct {
	Decode  Choice
	Prefill Choice // Index -1: the decode engine computes the prompt itself
}

// Split chooses the engine that decodes among decode.Candidates, and whether one of prefill.Candidates computes the
// prompt for it; both observations are of one request. Warm compares the fleet seconds of both ways for each decode
// engine: its own TTFT here with the stall of those who decode here, or its TTFT through the best prefill engine with
// the queue there and the transfer. The other policies choose both engines alike, and split from 512 uncached tokens.
// It never splits prompts of less than a block, nor between two engines of role both, which could wait for each other's
// blocks. Equal arguments give equal pairs; costs are appended to those of last, from their beginning.
func Split(name Name, s *State, decode, prefill *Observation, random uint64, last Pair) Pair {
	if name == Warm {
		return splitWarm(s, decode, prefill, random, last)
	}
	pair := Pair{Decode: Pick(name, s, decode, random, last.Decode.Costs), Prefill: Choice{Index: -1}}
	c := &decode.Candidates[pair.Decode.Index]
	if decode.PromptTokens-held(decode, c) < splitAt {
		return pair
	}
	pair.Prefill = Pick(name, s, prefill, random>>32|random<<32, last.Prefill.Costs)
	if !Splittable(decode, c, &prefill.Candidates[pair.Prefill.Index]) {
		pair.Prefill = Choice{Index: -1, Costs: pair.Prefill.Costs}
	}
	return pair
}

// Splittable says whether p may compute the prompt of o for c at all.
func Splittable(o *Observation, c, p *Candidate) bool {
	block := o.BlockSize
	if block == 0 {
		block = 16
	}
	return o.PromptTokens-held(o, c) >= block && !(c.Both && p.Both)
}

func splitWarm(s *State, decode, prefill *Observation, random uint64, last Pair) Pair {
	f, g := look(s, decode, 0), look(s, prefill, 0)
	there := last.Prefill.Costs[:0]
	least := 0
	for i := range prefill.Candidates {
		there = append(there, g.computes(s, prefill, &prefill.Candidates[i], f.beta))
		if there[i] < there[least] {
			least = i
		}
	}
	p := g.settle(prefill, there, least, random)
	costs := last.Decode.Costs[:0]
	best := 0
	for i := range decode.Candidates {
		cost, _ := f.either(s, decode, &decode.Candidates[i], &prefill.Candidates[p], there[p])
		costs = append(costs, cost)
		if cost < costs[best] {
			best = i
		}
	}
	d := f.settle(decode, costs, best, random)
	pair := Pair{
		Decode:  Choice{Index: d, Costs: costs, Reason: f.reason(decode, costs, best, best, d)},
		Prefill: Choice{Index: -1, Costs: there},
	}
	if _, remote := f.either(s, decode, &decode.Candidates[d], &prefill.Candidates[p], there[p]); remote {
		pair.Prefill.Index = p
		pair.Prefill.Reason = g.reason(prefill, there, least, least, p)
	}
	return pair
}

// computes is what it costs the fleet that c computes the prompt for another: the wait for what was sent there before,
// its own time, the stall of those that decode there, and what it evicts. beta weighs what is done to others.
func (f *fleet) computes(s *State, o *Observation, c *Candidate, beta float64) float64 {
	rate, matched := s.Rate(c.Engine), held(o, c)
	uncached := o.PromptTokens - matched
	own := rate.Prefill * f.profile.prefill(matched, o.PromptTokens)
	step := rate.Decode * f.profile.step(c.Active-c.Waiting, c.DecodeContext)
	cost := f.queue(o, c, rate.Prefill, float64(uncached), step) + own
	cost += f.profile.stepsBefore(c, uncached) * step
	cost += beta * f.hot * own * float64(c.Active-c.Waiting)
	evict, room := f.memory(c, float64(uncached))
	return cost + evict + room
}

// either is the lesser cost of decoding on c: with the prompt computed there, or by p for so many seconds. Where there
// is a choice the stall of those who decode on c weighs as the share of load in a decode step, not as its square: that
// they are not stalled is what prefill engines are for, and what is computed on c before many decode stalls those to come.
func (f *fleet) either(s *State, o *Observation, c, p *Candidate, seconds float64) (cost float64, remote bool) {
	local, _ := f.cost(s, o, c)
	if !Splittable(o, c, p) {
		return local, false
	}
	own := s.Rate(c.Engine).Prefill * f.profile.prefill(held(o, c), o.PromptTokens)
	running, _ := f.beside(c)
	local += (math.Sqrt(f.beta)*float64(c.Active) - f.beta*running) * f.hot * own
	if away := seconds + f.receives(s, o, c); away < local {
		return away, true
	}
	return local, false
}

// receives is what it costs the fleet that c decodes a prompt that another computes: the transfer and the steps around
// it, the decode, and what it evicts. Where its cache is full blocks come free while the prompt is computed elsewhere.
func (f *fleet) receives(s *State, o *Observation, c *Candidate) float64 {
	rate := s.Rate(c.Engine)
	uncached := o.PromptTokens - held(o, c)
	step := rate.Decode * f.profile.step(c.Active-c.Waiting, c.DecodeContext)
	cost := s.TransferSeconds(uncached) + StepsAround*step
	evict, cold := f.memory(c, float64(uncached))
	running, context := f.beside(c)
	return cost + f.beta*f.decode(o, rate.Decode, running, context) + evict + cold
}

// TransferSeconds predicts how long the KV of so many tokens takes from one engine to another.
func (s *State) TransferSeconds(tokens int) float64 {
	factor := s.transfer
	if factor == 0 {
		factor = 1
	}
	return factor * (transferSetup + transferToken*float64(tokens))
}

// Transferred learns from how long the KV of so many tokens took.
func (s *State) Transferred(seconds float64, tokens int) {
	known := s.transfer
	if known == 0 {
		known = 1
	}
	seen := max(leastSeen, seconds/(transferSetup+transferToken*float64(tokens)))
	s.transfer = known + (min(seen, 4*known)-known)/32
}
