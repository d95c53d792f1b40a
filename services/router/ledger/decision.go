package ledger

import (
	"slices"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/policy"
)

// Decision is a choice as it was made. Its slices are its own and run over the same candidates, sorted by engine id.
type Decision struct {
	Engine  fleet.Engine // chosen
	Reason  policy.Reason
	Names   []string  // of the engines that could be chosen, as the operator knows them
	Matched []int     // leading blocks of the prompt that the index says each holds; 0 where nobody said
	Costs   []float64 // as the policy priced each; nil where it has no prices
	Prefill *Decision // who computes the prompt; nil where Engine does
}

// decided notes a choice and keeps the room of its costs. The lock is held, so it only copies.
func (p *Pool) decided(pair *policy.Pair) *Decision {
	d := p.decode.decided(&pair.Decode)
	if pair.Prefill.Index >= 0 {
		d.Prefill = p.prefill.decided(&pair.Prefill)
	}
	return d
}

func (f *field) decided(choice *policy.Choice) *Decision {
	if choice.Costs != nil {
		f.costs = choice.Costs
	}
	d := &Decision{
		Engine: f.rows[choice.Index].engine, Reason: choice.Reason,
		Names: make([]string, len(f.rows)), Matched: slices.Clone(f.matched), Costs: slices.Clone(choice.Costs),
	}
	for i, w := range f.rows {
		d.Names[i] = w.engine.Name
	}
	return d
}
