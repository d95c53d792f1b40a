package gates

import (
	"github.com/warmpath/warmpath/loadgen/workload"
)

// Hit ratios of an endless cache on Mooncake's conversation trace: of its blocks of 512 tokens, as NVIDIA publishes it,
// and of tokens in blocks of 16.
const (
	conversationBlocks = .3664
	conversationTokens = .3736
)

// Invariants returns gates 2.1.1 to 2.1.11: what must hold exactly, and closed forms. Each random experiment is made
// longer by the factor rounds; 1 takes seconds in all. trace is the file of the conversation trace, empty without it.
func Invariants(rounds int, trace string) []Gate {
	long := func(f func(int) ([]Row, error)) func() ([]Row, error) {
		return func() ([]Row, error) { return f(rounds) }
	}
	n := float64(rounds)
	all := []Gate{
		{ID: "2.1.1", Weight: .1 * n, Run: long(conservation)},
		{ID: "2.1.2", Weight: .4 * n, Run: long(replayed)},
		{ID: "2.1.3", Weight: .1 * n, Run: long(hits)},
		{ID: "2.1.4", Weight: .3 * n, Run: long(work)},
		{ID: "2.1.5", Weight: 1 * n, Run: long(queue)},
		{ID: "2.1.6", Weight: .3 * n, Run: long(closedLoop)},
		{ID: "2.1.7", Weight: .6 * n, Run: long(caches)},
		{ID: "2.1.8", Weight: 4, Run: func() ([]Row, error) {
			t, err := workload.Open(trace)
			if err != nil {
				return nil, err
			}
			return traceIdeal(t, conversationBlocks, conversationTokens)
		}},
		{ID: "2.1.9", Weight: .4 * n, Run: long(bound)},
		{ID: "2.1.10", Weight: .1, Run: chunks},
		{ID: "2.1.11", Weight: .4 * n, Run: long(same)},
	}
	if trace == "" {
		all[7].Missing, all[7].Run = "the conversation trace is not at hand", nil
	}
	return all
}
