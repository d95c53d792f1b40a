package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/policy"
)

// What each sees beside the router's Observation is said where it is defined.
var policies = []string{"warm", "random", "round-robin", "least-requests", "least-tokens", "power-of-two", "session", "bounded-hash",
	"approx-2025", "approx", "precise-2025", "precise-2026", "dynamo", "greedy", "oracle"}

// LoadOnly is llm-d's scoring without a prefix: queue and KV usage alone. It is for comparison with published tables
// that have it, and none of Policies.
const LoadOnly = "load"

// Policies returns the names of all policies, ours first.
func Policies() []string { return slices.Clone(policies) }

// ParsePolicies reads a list of names divided by commas; all is every policy, ablations is ours and all of its ablations.
func ParsePolicies(list string) ([]string, error) {
	switch list {
	case "all":
		return Policies(), nil
	case "ablations":
		return append([]string{"warm"}, Ablations()...), nil
	}
	names := strings.Split(list, ",")
	for _, name := range names {
		if !slices.Contains(policies, name) && ablation(name) == nil {
			return nil, fmt.Errorf("policy %q is none of %s", name, strings.Join(policies, ", "))
		}
	}
	return names, nil
}

// rival is what a published policy remembers or sees of its own, beside the Observation that all get.
type rival struct {
	index *index
	guess *guess // of those that do not listen to engines
	cost  func(o *policy.Observation, i int) float64

	keys    []uint64 // of the prompt in hand
	session *session // of the turn in hand, whose output is read by oracle alone
}

// picker returns how a policy chooses.
func picker(o Options, r *router, engines []*engine) (ledger.Picker, *rival, error) {
	switch name := policy.Name(o.Policy); name {
	case "", policy.Warm, policy.RoundRobin, policy.LeastTokens, policy.Random:
		name, err := policy.Parse(o.Policy)
		return func(s *policy.State, o *policy.Observation, random uint64, costs []float64) policy.Choice {
			return policy.Pick(name, s, o, random, costs)
		}, nil, err
	}
	if pick := ablation(o.Policy); pick != nil {
		return pick, nil, nil
	}
	v := &rival{index: r.index}
	var pick ledger.Picker
	switch o.Policy {
	case "least-requests":
		v.cost = func(o *policy.Observation, i int) float64 { return float64(o.Candidates[i].Active) }
	case "power-of-two":
		pick = powerOfTwo
	case "session":
		pick = v.sticky
	case "bounded-hash":
		pick = v.boundedHash
	case "approx-2025":
		// llm-d 2025: 31,250 remembered blocks a pod, the first 256 blocks of a prompt; prefix, KV and queue weigh alike.
		v.guess = newGuess(len(engines), func(int) int { return 31_250 }, 1, 256)
		pick = v.scorer(weights{1, 1, 1}, false)
	case "approx":
		// llm-d since: blocks of 64 tokens, as many remembered as the engine has, prompts to 131,072 tokens.
		per := max(1, 64/o.BlockSize)
		v.guess = newGuess(len(engines), func(i int) int { return engines[i].core.Options().Blocks / per }, per, 131_072/64)
		pick = v.scorer(weights{3, 2, 2}, false)
	case "precise-2025":
		pick = v.scorer(weights{3, 2, 2}, true)
	case "precise-2026":
		pick = v.scorer(weights{3, 2, 2}, false)
	case LoadOnly:
		pick = v.scorer(weights{0, 1, 1}, false)
	case "dynamo":
		v.cost = v.dynamo
	case Placed:
		pick = v.placed(o.Placed)
	case "greedy":
		pick = greedy
	case "oracle":
		pick = v.oracle
	default:
		_, err := ParsePolicies(o.Policy)
		return nil, nil, err
	}
	if pick == nil {
		pick = v.least
	}
	return pick, v, nil
}

// least chooses the least cost, ties at random.
func (v *rival) least(_ *policy.State, o *policy.Observation, random uint64, _ []float64) policy.Choice {
	return cheapest(o, random, func(i int) float64 { return v.cost(o, i) })
}

func cheapest(o *policy.Observation, random uint64, cost func(i int) float64) policy.Choice {
	best, least, ties := 0, math.Inf(1), uint64(0)
	for i := range o.Candidates {
		switch c := cost(i); {
		case c < least:
			best, least, ties = i, c, 1
		case c == least:
			ties++
			random = random*6364136223846793005 + 1442695040888963407
			if random>>33%ties == 0 {
				best = i
			}
		}
	}
	return policy.Choice{Index: best}
}

// powerOfTwo draws two engines and takes the one with fewer requests.
func powerOfTwo(_ *policy.State, o *policy.Observation, random uint64, _ []float64) policy.Choice {
	n := uint64(len(o.Candidates))
	a, b := random%n, random>>32%n
	if o.Candidates[b].Active < o.Candidates[a].Active {
		a = b
	}
	return policy.Choice{Index: int(a)}
}

// sessionKey stands for the conversation: where the workload has sessions of several turns, that of the prompt in hand,
// as a cookie would name it; else the prompt up to token 1,024, as the first block is shared by all of some traces.
func (v *rival) sessionKey() uint64 {
	if len(v.session.turns) > 1 {
		return v.session.key()
	}
	if len(v.keys) == 0 {
		return 0
	}
	return v.keys[min(1024/v.index.size, len(v.keys)-1)]
}

func (v *rival) sticky(_ *policy.State, o *policy.Observation, _ uint64, _ []float64) policy.Choice {
	return policy.Choice{Index: v.rendezvous(o, v.sessionKey(), func(int) bool { return true })}
}

// boundedHash is consistent hashing with bounded loads (Mirrokni et al., 2018), 1.25 times the mean.
func (v *rival) boundedHash(_ *policy.State, o *policy.Observation, _ uint64, _ []float64) policy.Choice {
	total := 1
	for i := range o.Candidates {
		total += o.Candidates[i].Active
	}
	bound := math.Ceil(1.25 * float64(total) / float64(len(o.Candidates)))
	return policy.Choice{Index: v.rendezvous(o, v.sessionKey(), func(i int) bool { return float64(o.Candidates[i].Active) < bound })}
}

func (v *rival) rendezvous(o *policy.Observation, key uint64, allowed func(i int) bool) int {
	best, most := 0, uint64(0)
	for i := range o.Candidates {
		h := mix64(key ^ mix64(uint64(v.index.numbers[o.Candidates[i].Engine])+1))
		if allowed(i) && h >= most {
			best, most = i, h
		}
	}
	return best
}

// mix64 is the finaliser of SplitMix64.
func mix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// weights of llm-d's scorers.
type weights struct{ prefix, kv, queue float64 }

// scorer chooses the greatest weighted sum of llm-d's scores, each in 0 to 1: prefix matched/total, or where minMax is
// set scaled between the least and the greatest; 1-usage; and the scraped queue scaled between its extremes.
func (v *rival) scorer(w weights, minMax bool) ledger.Picker {
	var prefix []float64
	return func(_ *policy.State, o *policy.Observation, random uint64, _ []float64) policy.Choice {
		prefix = v.matched(prefix[:0], o)
		low, high := 0., 1.
		if minMax {
			low, high = slices.Min(prefix), slices.Max(prefix)
		}
		shortest, longest := math.MaxInt, 0
		for i := range o.Candidates {
			shortest, longest = min(shortest, o.Candidates[i].Queued), max(longest, o.Candidates[i].Queued)
		}
		choice := cheapest(o, random, func(i int) float64 {
			c, score := &o.Candidates[i], 0.
			if high > low {
				score += w.prefix * (prefix[i] - low) / (high - low)
			}
			queue := 1.
			if longest > shortest {
				queue = float64(longest-c.Queued) / float64(longest-shortest)
			}
			return -(score + w.kv*(1-c.Usage) + w.queue*queue)
		})
		if v.guess != nil {
			v.guess.sent(v.index.numbers[o.Candidates[choice.Index].Engine])
		}
		return choice
	}
}

// matched is the share of the prompt's blocks that each engine holds: as the index says, or as it is guessed.
func (v *rival) matched(dst []float64, o *policy.Observation) []float64 {
	if v.guess != nil {
		return v.guess.matched(dst, v.keys, o.Candidates, v.index.numbers)
	}
	for i := range o.Candidates {
		dst = append(dst, float64(v.gpu(&o.Candidates[i]))/float64(max(1, len(v.keys))))
	}
	return dst
}

// gpu is how many blocks of the prompt an engine holds, as the index says.
func (v *rival) gpu(c *policy.Candidate) int {
	return int(v.index.scores[v.index.numbers[c.Engine]].Gpu)
}

// dynamo is NVIDIA Dynamo's cost with its default weights: blocks that are to be computed, and blocks in use, as the
// router itself counts them.
func (v *rival) dynamo(o *policy.Observation, i int) float64 {
	c := &o.Candidates[i]
	prefill := c.Uncached + o.PromptTokens - v.gpu(c)*v.index.size
	return float64(prefill+c.DecodeContext+c.WaitContext) / float64(v.index.size)
}

// greedy chooses the least predicted TTFT.
func greedy(s *policy.State, o *policy.Observation, random uint64, _ []float64) policy.Choice {
	return cheapest(o, random, func(i int) float64 {
		c := &o.Candidates[i]
		matched := max(0, min(c.Matched, o.PromptTokens-1))
		wait := 0.
		if c.Waiting > 0 {
			run := o.Now - max(c.LastFirst, c.OldestSent)
			wait = max(0, c.WaitSeconds-max(0, min(run, c.OldestSeconds)))
		}
		step := s.StepSeconds(c.Active-c.Waiting, c.DecodeContext)
		return wait + s.StepsBefore(c, o.PromptTokens-matched)*step + s.PrefillSeconds(matched, o.PromptTokens)
	})
}

// oracle is our own cost with the true length of the answer and events that take no time.
func (v *rival) oracle(s *policy.State, o *policy.Observation, random uint64, costs []float64) policy.Choice {
	known := *s
	known.Output = float64(v.session.turn().Output)
	return policy.Pick(policy.Warm, &known, o, random, costs)
}
