package report

import (
	"math"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/loadgen/sim"
)

func swept() Sweep {
	var records []sim.Record
	add := func(setup, policy string, values ...float64) {
		for i, v := range values {
			records = append(records, sim.Record{Workload: "W8", Setup: setup, Policy: policy, Seed: uint64(i + 1), Metrics: sim.Metrics{Goodput: v}})
		}
	}
	add("a", "warm", .9, .92)
	add("a", "least-tokens", .9, .9)
	add("b", "warm", .66, .66)
	add("b", "least-tokens", .6, .6)
	add("a", "warm", .9, .92) // of another axis
	return Sweep{Axes: Fill([]Axis{{Workload: "W8", Axis: "lag", Unit: "until visible", Metric: "goodput",
		Points: []AxisPoint{{Label: "0s", Setup: "b"}, {Label: "5s", Setup: "a"}}}}, records)}
}

func TestSweepsNameTheWorstPoint(t *testing.T) {
	s := swept()
	a := s.Axes[0]
	if a.Worst != "5s" || math.Abs(a.Points[0].Gain.Diff-10) > 1e-9 || math.Abs(a.Points[1].Gain.Diff-10./9) > 1e-9 {
		t.Errorf("%+v %+v %+v", a, a.Points[0].Gain, a.Points[1].Gain)
	}
	if g := a.Points[1].Gain; g.CI95[0] > g.Diff || g.CI95[1] < g.Diff || math.Abs(g.CI95[0]) > 1e-9 {
		t.Errorf("%+v", g)
	}
	var table strings.Builder
	if err := s.Table(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"W8, lag (until visible): goodput", "0.9100", "+10.0 % [+10.0, +10.0]", "worst at 5s: +1.1 %"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, &table)
		}
	}
}

func TestSweepPageHoldsAllAxes(t *testing.T) {
	s := swept()
	s.Axes = append(s.Axes, s.Axes[0], Axis{Workload: "W1", Axis: "kv", Metric: "output_tok_s"})
	page := simulationHTML(t, &s)
	if n := strings.Count(page, "<svg"); n != 3 {
		t.Errorf("%d plots of 3 axes", n)
	}
	if !strings.Contains(page, "worst at 5s") {
		t.Error("the page does not name the worst point")
	}
}
