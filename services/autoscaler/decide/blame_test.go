package decide_test

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Prompts that wait at routers in order of arrival raise prefill alone, and not while decode is what they wait for.
func TestWhatWaitsIsBlamedOnItsRole(t *testing.T) {
	needs := func(tokens int, waiting float64) (prefill, decoders int) {
		p := newPool(t, decide.Policy{FCFS: true}, split(6, 7))
		p.totals.Tokens = tokens
		p.blind = func(o *decide.Observation) {
			for i := range o.Engines {
				if e := &o.Engines[i]; e.Role == decide.Decode {
					e.Scrape.Waiting = waiting
				}
			}
		}
		p.run(30*time.Second, steady())
		return p.last.Roles[decide.Prefill].Need, p.last.Roles[decide.Decode].Need
	}
	prefill, decoders := needs(0, 0)
	if p, d := needs(20_000_000, 0); p < prefill+2 || d != decoders { // 1,250 s of work, in 90 s
		t.Errorf("prompts wait for prefill: %d and %d, without %d and %d", p, d, prefill, decoders)
	}
	if p, d := needs(20_000_000, 20); p != prefill || d < decoders {
		t.Errorf("prompts wait for decode: %d and %d, without %d and %d", p, d, prefill, decoders)
	}
}
