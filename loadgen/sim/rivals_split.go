package sim

import (
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/policy"
)

// remoteAbove is llm-d's threshold as its documentation advises it: a prompt of which the decode engine lacks as many
// tokens is computed by a prefill engine.
const remoteAbove = 512

// splitter returns how a policy chooses where engines have roles. Published ones choose the decode engine first and the
// prefill engine by the same rule; what the decode engine holds decides which prompts are computed elsewhere:
//
//	dynamo      all but those of which less than 2,048 tokens and less than 0.7 are to be computed
//	all others  those of which the decode engine lacks 512 tokens, as in llm-d
//
// Dynamo chooses the prefill engine first; as it gives overlap on the decode engine no credit the order changes nothing
// else. Its bypass of a busy prefill pool is off by default.
func splitter(o Options, pick ledger.Picker, v *rival) ledger.Splitter {
	switch {
	case o.Policy == "oracle":
		return v.oracleSplit
	case v == nil:
		name, _ := policy.Parse(o.Policy)
		return func(s *policy.State, decode, prefill *policy.Observation, random uint64, last policy.Pair) policy.Pair {
			return policy.Split(name, s, decode, prefill, random, last)
		}
	}
	remote := func(_, uncached int) bool { return uncached >= remoteAbove }
	if o.Policy == "dynamo" {
		remote = func(prompt, uncached int) bool { return uncached >= 2048 || float64(uncached) >= .7*float64(prompt) }
	}
	return func(s *policy.State, decode, prefill *policy.Observation, random uint64, _ policy.Pair) policy.Pair {
		pair := policy.Pair{Decode: pick(s, decode, random, nil), Prefill: policy.Choice{Index: -1}}
		c := &decode.Candidates[pair.Decode.Index]
		if !remote(decode.PromptTokens, decode.PromptTokens-v.gpu(c)*v.index.size) {
			return pair
		}
		if p := pick(s, prefill, random>>32|random<<32, nil); policy.Splittable(decode, c, &prefill.Candidates[p.Index]) {
			pair.Prefill = p
		}
		return pair
	}
}

// oracleSplit is our own cost with the true length of the answer.
func (v *rival) oracleSplit(s *policy.State, decode, prefill *policy.Observation, random uint64, last policy.Pair) policy.Pair {
	known := *s
	known.Output = float64(v.session.turn().Output)
	return policy.Split(policy.Warm, &known, decode, prefill, random, last)
}
