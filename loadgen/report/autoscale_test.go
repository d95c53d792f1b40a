package report

import (
	"strings"
	"testing"

	"github.com/warmpath/warmpath/loadgen/elastic"
)

// scaled is a run of so good an answer at such a cost.
func scaled(policy string, seed uint64, good, hours float64) elastic.Record {
	r := elastic.Record{Workload: "ramp", Policy: policy, Variant: elastic.Default, Service: elastic.SLO, Startup: 110, Seed: seed, Setup: "x",
		Arrivals: "some <requests>", Metrics: elastic.Metrics{Joint: good, Feasible: good, GPU: 3600 * hours}}
	if seed == 1 {
		of := func(v int) map[string][]int { return map[string][]int{"prefill": {v, v}, "decode": {v, v + 1}} }
		r.Series = &elastic.Series{Step: 5, Rate: []float64{1, 2}, Good: []float64{1, -1}, Queued: []int{0, 1},
			Demand: map[string][]float64{"prefill": {1, 1}, "decode": {1, 2}}, Serving: of(2), Starting: of(0), Draining: of(0),
			Decisions: []elastic.Decided{{At: 5, Role: "decode", From: 2, To: 3, Rule: "forecast<"}}}
	}
	return r
}

// The page says where ours loses, and to whom: never where it is dearer, or where it keeps less.
func TestAutoscalePageSaysWhereOursLoses(t *testing.T) {
	for name, c := range map[string]struct {
		good, hours float64
		loses       bool
	}{"better and cheaper": {.995, 9, true}, "better and dearer": {.999, 12, false}, "cheaper and worse": {.9, 5, false}, "as good at the same": {.99, 10, true}} {
		a := Autoscale{SLO: "1.5s"}
		for seed := range uint64(2) {
			a.Records = append(a.Records, scaled(elastic.Ours, seed+1, .99, 10), scaled("wva-v2", seed+1, c.good, c.hours))
		}
		var b strings.Builder
		if err := a.HTML(&b); err != nil {
			t.Fatal(err)
		}
		page := b.String()
		if strings.Contains(page, "loses to wva-v2:") != c.loses || strings.Contains(page, `class="beats"`) != c.loses {
			t.Errorf("%s: a loss is shown wrongly", name)
		}
		for _, want := range []string{"99.00 ± 0.00 %", "some &lt;requests&gt;", "forecast&lt;", "ramp, start-up 110 s, service slo", "<svg"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q in the page", name, want)
			}
		}
		if strings.Contains(page, "forecast<") || strings.Contains(page, "<requests>") {
			t.Errorf("%s: text is not escaped", name)
		}
	}
}
