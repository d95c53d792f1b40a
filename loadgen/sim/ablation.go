package sim

import (
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/policy"
)

// An ablation is our policy with one thing less, so that what the thing is worth can be measured.
type withoutOne struct {
	name string // after "warm-"
	term policy.Term
	less func(o *policy.Observation, s *policy.State) // takes knowledge away; may be nil
}

var ablations = []withoutOne{
	{"no-queue", policy.Queue, nil},
	{"no-stall", policy.Stall, nil},
	{"no-decode", policy.Decode, nil},
	{"no-evict", policy.Evict, nil},
	{"no-cold", policy.Cold, nil},
	{"no-load", policy.Load, nil},
	{"no-hot", policy.Hot, nil},
	{"no-tie", policy.Tie, nil},
	{"no-follow", policy.Follow, nil},
	{"no-learn", policy.Learn, nil},
	{"no-placements", 0, forgetPlacements},
	{"no-turn", 0, asOfNow},
	{"no-ledger", 0, scrapedOnly},
}

// Ablations returns the names of our policy with one thing less each.
func Ablations() (names []string) {
	for _, a := range ablations {
		names = append(names, "warm-"+a.name)
	}
	return names
}

// ablation is the picker of an ablation's name; nil where there is none.
func ablation(name string) ledger.Picker {
	for _, a := range ablations {
		if name != "warm-"+a.name {
			continue
		}
		return func(s *policy.State, o *policy.Observation, random uint64, costs []float64) policy.Choice {
			if a.less != nil {
				less := *o
				less.Candidates = append([]policy.Candidate(nil), o.Candidates...)
				a.less(&less, s)
				o = &less
			}
			return policy.PickWithout(a.term, s, o, random, costs)
		}
	}
	return nil
}

// forgetPlacements leaves what the index says.
func forgetPlacements(o *policy.Observation, _ *policy.State) {
	for i := range o.Candidates {
		o.Candidates[i].Matched -= o.Candidates[i].Placed
	}
}

// asOfNow leaves what engines hold now, and what is under way, whatever they evict before the prompt's turn.
func asOfNow(o *policy.Observation, _ *policy.State) {
	for i := range o.Candidates {
		c := &o.Candidates[i]
		c.Matched, c.Placed, c.Leaving = c.Matched+c.Leaving, c.Placed+c.Leaving, 0
	}
}

// scrapedOnly replaces the router's own books by what the engines' metrics said at their last scrape: requests in the
// queue, and blocks in use, both taken for prompts like the one in hand.
func scrapedOnly(o *policy.Observation, s *policy.State) {
	for i := range o.Candidates {
		c := &o.Candidates[i]
		running := int(c.Usage * float64(c.Blocks*o.BlockSize))
		seconds := s.PrefillSeconds(min(c.Matched, o.PromptTokens-1), o.PromptTokens)
		c.Waiting, c.WaitContext, c.Uncached = c.Queued, c.Queued*o.PromptTokens, c.Queued*max(1, o.PromptTokens-c.Matched)
		c.WaitSeconds, c.OldestSent, c.OldestSeconds = float64(c.Queued)*seconds, o.Now, seconds
		c.DecodeContext, c.Active = running, c.Queued+running/(o.PromptTokens+int(s.Output)/2+1)
		c.ColdWork = 0
	}
}
