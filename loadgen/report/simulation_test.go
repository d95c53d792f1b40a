package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/sim"
)

// simulated is a part with made-up figures of so many policies and seeds.
func simulated(policies []string, seeds int) Part {
	p := Part{Name: "W1", What: "a test"}
	for i, policy := range policies {
		for seed := range seeds {
			v := float64(i) + .1*float64(seed)
			r := sim.Record{Workload: "W1", Policy: policy, Seed: uint64(seed + 1), Metrics: sim.Metrics{
				OutputTokS: 9000 - 100*v, Goodput: .9 - .01*v, HitRatio: .5, TTFTP90: .1 + v, BusyMaxOverMean: 1.02,
			}}
			for _, rate := range []float64{3, 10, 40} {
				r.ByLoad = append(r.ByLoad, sim.Point{Rate: rate, Offered: 100, OutputTokS: 100 * rate, TTFTP50: .01 * rate, TTFTP90: .1 + v})
			}
			if seed == 0 {
				r.Load = &sim.FleetLoad{Step: 1, Top: 51, Engines: [][]byte{{0, 100, 255}, {5, 90, 240}}}
			}
			p.Records = append(p.Records, r)
		}
	}
	return p
}

func simulationHTML(t *testing.T, p Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSimulationPageHoldsAllPlots(t *testing.T) {
	page := simulationHTML(t, &Simulation{SLO: sim.SLO{TTFT: 2 * time.Second, ITL: 50 * time.Millisecond}, Parts: []Part{
		simulated([]string{"warm", "random", "greedy"}, 3),
	}})
	if n := strings.Count(page, "<svg"); n != 6+3 {
		t.Errorf("%d plots, want 6 and one of load for each of 3 policies", n)
	}
	for _, want := range []string{"Median time to first token", "90th percentile", "Output tokens: difference", "Goodput: difference",
		"prefix cache", "offered load, requests a second", "virtual time, minutes", "warm, busiest engine 1.02", "2s to the first token",
		`class="ours"><td>warm`, "8,990", "% of prompt tokens"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// With one policy there is nothing to compare, without runs nothing at all: a page all the same.
func TestSimulationPageOfLittle(t *testing.T) {
	if n := strings.Count(simulationHTML(t, &Simulation{Parts: []Part{simulated([]string{"warm"}, 1)}}), "<svg"); n != 5 {
		t.Errorf("%d plots of one policy", n)
	}
	refused := simulated([]string{"warm", "random"}, 1)
	for i := range refused.Records {
		refused.Records[i].ByLoad, refused.Records[i].Metrics, refused.Records[i].Load = nil, sim.Metrics{}, nil
	}
	simulationHTML(t, &Simulation{Parts: []Part{{Name: "W1"}, refused}})
}

// Ours has one colour, no two lines have the same, and of many policies the best and the simplest are drawn.
func TestPoliciesHaveColoursOfTheirOwn(t *testing.T) {
	policies := append([]string{}, sim.Policies()...)
	for n := 1; n <= len(policies); n++ {
		shown, left := choose(policies[:n])
		at := paint(shown)
		used := map[int]string{}
		for _, p := range shown {
			if used[at[p]] != "" || len(at) != len(shown) {
				t.Errorf("%s has the colour of %s", p, used[at[p]])
			}
			used[at[p]] = p
		}
		if at["warm"] != 0 || len(shown) > mostLines || len(shown)+len(left) != n {
			t.Errorf("of %d: %v and %v", n, shown, left)
		}
	}
	p := simulated([]string{"random", "session", "warm", "a", "b", "c", "d", "e", "least-tokens", "f"}, 2)
	v := newView(&p)
	if got := fmt.Sprint(v.shown); got != "[warm random session a b c least-tokens]" {
		t.Errorf("%s have lines", got)
	}
}
