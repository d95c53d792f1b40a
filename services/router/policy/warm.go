package policy

import "math"

const (
	nearTie     = 0.008 // seconds: costs that close are the same
	followTie   = 0.016 // seconds: what a request waits more for half of its prompt, rather than have it computed twice
	evictPrice  = 0.5   // P: share of evicted prompt blocks that will be asked for again
	evictFactor = 1.2   // a block costs a bit more to compute again than now
	coldFactor  = 50    // weight of placing a cold prompt on an engine with room
)

// fleet is what the cost of every candidate needs of all of them.
type fleet struct {
	profile Profile
	output  float64 // mean output tokens of a request
	active  float64 // A: mean active requests
	context float64 // mean context tokens of these
	beta    float64 // share of load in a decode step, squared: weight of what is done to others
	hot     float64 // g: below 1 where one prefix alone needs more engines than hold it
	cold    bool    // nobody holds half of the prompt
	block   float64
	phi     float64 // mean prefill factor
	without Term    // left out by an experiment
}

// Term is a part of the rule that an experiment can leave out.
type Term uint

// The terms of Warm.
const (
	Queue  Term = 1 << iota // the wait for what was sent before
	Stall                   // what its prefill does to running decodes
	Decode                  // what its decode costs here, and slows there
	Evict                   // the price of what it evicts
	Cold                    // the room that is left, for cold prompts
	Load                    // what is done to others counts by the fleet's load; without it, always in full
	Hot                     // a prefix that one engine alone cannot serve is copied cheaply
	Tie                     // engines that cost about the same are chosen among by cold work
	Follow                  // a prefix under way is followed
	Learn                   // engines' rates are learned
)

// PickWithout is Pick of Warm with some terms left out: what an experiment needs to tell what each is worth.
func PickWithout(terms Term, s *State, o *Observation, random uint64, costs []float64) Choice {
	if len(o.Candidates) == 0 {
		return Choice{Index: -1, Reason: NoEngine}
	}
	if terms&Learn != 0 {
		s = &State{Profile: s.Profile, Output: s.Output}
	}
	return warm(s, o, random, costs[:0], terms)
}

// warm is the marginal fleet cost: the request's own TTFT, what it does to running decodes, what its decode will cost
// and slow, the price of what it evicts, and for cold prompts the room that is left.
func warm(s *State, o *Observation, random uint64, costs []float64, without Term) Choice {
	f := look(s, o, without)
	best, free, least := 0, 0, math.Inf(1) // free is the best one if eviction were free
	for i := range o.Candidates {
		cost, evict := f.cost(s, o, &o.Candidates[i])
		costs = append(costs, cost)
		if cost < costs[best] {
			best = i
		}
		if cost-evict < least {
			free, least = i, cost-evict
		}
	}
	j := f.settle(o, costs, best, random)
	return Choice{Index: j, Costs: costs, Reason: f.reason(o, costs, best, free, j)}
}

// held is how much of the prompt c need not compute: at least one token always runs.
func held(o *Observation, c *Candidate) int { return max(0, min(c.Matched, o.PromptTokens-1)) }

func look(s *State, o *Observation, without Term) fleet {
	n := float64(len(o.Candidates))
	f := fleet{profile: s.profile(), output: s.meanOutput(), hot: 1, block: 16, without: without}
	p := &f.profile
	if o.BlockSize > 0 {
		f.block = float64(o.BlockSize)
	}
	best := 0
	for i := range o.Candidates {
		c := &o.Candidates[i]
		f.active += float64(c.Active) / n
		f.context += float64(c.DecodeContext+c.WaitContext) / n
		f.phi += s.Rate(c.Engine).Prefill / n
		best = max(best, held(o, c))
	}
	load := p.Sequence*f.active + p.Context*f.context/1000
	if f.beta = math.Pow(load/(p.Step+load), 2); without&Load != 0 {
		f.beta = 1
	}
	f.cold = 2*best < o.PromptTokens
	if !f.cold && o.Sharing > 0 && without&Hot == 0 {
		holders := 0
		for i := range o.Candidates {
			if 2*held(o, &o.Candidates[i]) >= best {
				holders++
			}
		}
		if x := 3 * float64(o.Sharing) / max(1, f.active) / float64(holders); x > 1 {
			f.hot = 1 / (x * x)
		}
	}
	return f
}

// cost is what a candidate costs the fleet, and how much of it is the price of what it evicts.
func (f *fleet) cost(s *State, o *Observation, c *Candidate) (cost, evict float64) {
	rate := s.Rate(c.Engine)
	matched := held(o, c)
	uncached := float64(o.PromptTokens - matched)
	own := rate.Prefill * f.profile.prefill(matched, o.PromptTokens)
	step := rate.Decode * f.profile.step(c.Active-c.Waiting, c.DecodeContext)

	running, context := f.beside(c)
	cost = own + f.profile.stepsBefore(c, o.PromptTokens-matched)*step
	if f.without&Queue == 0 {
		cost += f.queue(o, c, rate.Prefill, uncached, step)
	}
	if f.without&Stall == 0 {
		cost += f.beta * f.hot * own * running
	}
	if f.without&Decode == 0 {
		cost += f.beta * f.decode(o, rate.Decode, running, context)
	}
	evict, room := f.memory(c, uncached)
	return cost + evict + room, evict
}

// queue is the wait for what was sent before, and where the cache is full, for sequences to end.
func (f *fleet) queue(o *Observation, c *Candidate, phi, uncached, step float64) float64 {
	wait := 0.
	if c.Waiting > 0 {
		run := (o.Now - max(c.LastFirst, c.OldestSent)) / phi // of the oldest one's work, how much is done
		wait = phi * max(0, c.WaitSeconds-max(0, min(run, c.OldestSeconds)))
	}
	if c.DecodeContext > 0 && f.full(c, uncached) {
		ahead := float64(c.WaitContext+o.PromptTokens) + float64(c.Waiting+1)*f.output/2
		wait += f.output * step * ahead / float64(c.DecodeContext)
	}
	return wait
}

// full tells whether the engine's cache has no room for so many more tokens, beside those that wait, while others run.
func (f *fleet) full(c *Candidate, uncached float64) bool {
	need := (float64(c.Uncached+c.Coming) + uncached) / f.block
	return c.Blocks > 0 && c.Active > c.Waiting && c.Usage*float64(c.Blocks)+need > float64(c.Blocks)
}

// beside is how many requests will decode beside one that is sent to c now, and their context: all that c has, as those
// that wait will decode by then. Where the cache is full it is the fleet's mean. What runs there when its turn comes is
// not what runs now, and long prompts would otherwise keep away from engines with many short requests, which then get
// all the short ones.
func (f *fleet) beside(c *Candidate) (requests, context float64) {
	if f.full(c, 0) {
		return f.active, f.context
	}
	return float64(c.Active), float64(c.DecodeContext + c.WaitContext)
}

// decode is how much slower the request decodes beside others than alone, and how much it slows each of them.
func (f *fleet) decode(o *Observation, rate, running, context float64) float64 {
	p, output := &f.profile, f.output
	load := p.Sequence*running + p.Context*context/1000
	others := (p.Sequence + p.Context*(float64(o.PromptTokens)+output/2)/1000) * running
	return output * rate * (load + others) / 1000
}

// memory is the price of the blocks that the prompt evicts, and for a cold prompt that of room already taken.
func (f *fleet) memory(c *Candidate, uncached float64) (evict, room float64) {
	if c.Blocks <= 0 {
		return 0, 0
	}
	blocks, mapped := float64(c.Blocks), float64(c.Mapped)+float64(c.Uncached+c.Coming)/f.block
	token := f.profile.Prefill * evictFactor / 1000 * f.phi
	if f.without&Evict == 0 {
		evicted := max(0, uncached/f.block-max(0, blocks-mapped))
		evict = f.hot * evictPrice * evicted * f.block * token * (1 + f.beta*f.active)
	}
	if f.cold && f.without&Cold == 0 {
		filled := 1.
		if !c.Evicted {
			filled = min(1, mapped/blocks)
		}
		room = coldFactor * f.beta * filled * uncached * token * (1 + f.active)
	}
	return evict, room
}
