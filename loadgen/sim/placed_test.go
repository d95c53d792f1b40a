package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// Placements that a policy made are served to the nanosecond as that policy had them served.
func TestPlacedServesAsWasChosen(t *testing.T) {
	trace := workload.Generate(30*time.Second, 1)
	w := FromTrace(trace.Jitter(3*time.Second, 1), 1)
	serve := func(o Options) (answers []Answer) {
		o.Pods, o.Seed = 3, 7
		o.Answered = func(a Answer) { answers = append(answers, a) }
		run(t, o, w)
		slices.SortFunc(answers, func(a, b Answer) int { return a.Request - b.Request })
		return answers
	}
	chosen := serve(Options{Policy: "warm", Routers: 2})
	var engines []int
	for _, a := range chosen {
		engines = append(engines, a.Engine)
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(engines)))); n != 3 || len(engines) != w.Requests() {
		t.Fatalf("%d requests on %d engines: this test sees little", len(engines), n)
	}
	again := serve(Options{Policy: Placed, Placed: engines})
	for i := range again {
		again[i].Promised = chosen[i].Promised // is the router's own affair
	}
	if !slices.Equal(again, chosen) {
		t.Error("other answers from the same placements")
	}
	slices.Reverse(engines)
	if slices.Equal(serve(Options{Policy: Placed, Placed: engines}), chosen) {
		t.Error("the same answers from other placements")
	}
}

func TestPlacementsAreChecked(t *testing.T) {
	trace := workload.Trace{Requests: []workload.Request{{Input: 30, Output: 2, Blocks: []uint64{1}}}}
	w := FromTrace(trace, 1)
	for name, o := range map[string]Options{
		"none": {}, "too many": {Placed: []int{0, 0}}, "no such engine": {Placed: []int{2}}, "below": {Placed: []int{-1}},
		"two routers": {Placed: []int{1}, Routers: 2}, "roles": {Placed: []int{0}, Prefill: 1, Decode: 1},
		"an outage": {Placed: []int{0}, Outages: []Outage{{Engine: 0, From: 1, To: 2}}},
	} {
		o.Pods, o.Policy = 2, Placed
		if _, err := Run(o, &w, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Run(Options{Pods: 2, Policy: Placed, Placed: []int{1}}, &w, nil); err != nil {
		t.Error(err)
	}
}
