package ledger

import (
	"slices"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/policy"
)

// Decision is a choice as it was made. Its slices are its own and run over the same candidates, sorted by engine id.
type Decision struct {
	Engine  fleet.Engine // chosen
	Reason  string       // the policy's, in words
	Names   []string     // of the engines that could be chosen, as the operator knows them
	Matched []int        // leading blocks of the prompt that the index says each holds; 0 where nobody said
	Costs   []float64    // as the policy priced each; nil where it has no prices
}

// decided notes a choice. The lock is held, so it only copies.
func (p *Pool) decided(rows []*row, choice policy.Choice) *Decision {
	d := &Decision{
		Engine: rows[choice.Index].engine, Reason: choice.Reason,
		Names: make([]string, len(rows)), Matched: slices.Clone(p.matched), Costs: slices.Clone(choice.Costs),
	}
	for i, w := range rows {
		d.Names[i] = w.engine.Name
	}
	return d
}
