package gates

import (
	"slices"
	"testing"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// Every invariant and closed form, at its smallest size.
func TestInvariants(t *testing.T) {
	for _, g := range Invariants(1, "") {
		if g.ID == "2.1.8" {
			g.Missing, g.Run = "", func() ([]Row, error) { return traceIdeal(conversations(), 0, 0) }
		}
		t.Run(g.ID, func(t *testing.T) {
			r, err := Run(t.Context(), []Gate{g}, nil)
			if err != nil || len(r.Gates) == 0 {
				t.Fatalf("%d rows, %v", len(r.Gates), err)
			}
			for _, row := range r.Gates {
				if !row.Pass {
					t.Errorf("%s: expected %v, got %v %s", row.Name, row.Expected, row.Got, row.Note)
				}
			}
		})
	}
}

// conversations are 300 of 4 turns that share their first block.
func conversations() workload.Trace {
	next := uint64(1)
	var all []workload.Request
	for range 300 {
		r := workload.Request{Blocks: []uint64{0}}
		for range 4 {
			for range 5 {
				r.Blocks = append(r.Blocks, next)
				next++
			}
			r.Input = len(r.Blocks)*workload.BlockTokens - int(next%workload.BlockTokens)
			all = append(all, workload.Request{Input: r.Input, Output: 1, Blocks: slices.Clone(r.Blocks)})
		}
	}
	return workload.Trace{Requests: all}
}
