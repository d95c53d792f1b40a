package sim

import (
	"fmt"

	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/policy"
)

// Placed is the policy that sends each request where Options.Placed says, to judge in virtual time what routers chose
// elsewhere. It is none of Policies.
const Placed = "placed"

// checkPlaced holds that there is an engine for every request, and nothing that would send one anywhere else.
func (o Options) checkPlaced(w *Workload) error {
	if o.Policy != Placed {
		return nil
	}
	if n := w.Requests(); len(o.Placed) != n {
		return fmt.Errorf("placements of %d requests for a workload of %d", len(o.Placed), n)
	}
	if o.Routers > 1 || len(o.Outages) > 0 || o.Order != "" || o.Prefill+o.Decode > 0 {
		return fmt.Errorf("policy %q is for one router and engines of role both that stay", Placed)
	}
	for i, e := range o.Placed {
		if e < 0 || e >= o.Pods {
			return fmt.Errorf("request %d is placed on engine %d of %d", i, e, o.Pods)
		}
	}
	return nil
}

// placed chooses as engines says, request by request in the order in which they are sent.
func (v *rival) placed(engines []int) ledger.Picker {
	sent := -1
	return func(_ *policy.State, o *policy.Observation, _ uint64, _ []float64) policy.Choice {
		sent++
		for i := range o.Candidates {
			if v.index.numbers[o.Candidates[i].Engine] == engines[sent] {
				return policy.Choice{Index: i}
			}
		}
		panic(fmt.Sprintf("simulate: engine %d of request %d is no candidate", engines[sent], sent))
	}
}
