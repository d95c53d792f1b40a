package report

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"gonum.org/v1/plot/plotter"

	"github.com/warmpath/warmpath/loadgen/sim"
)

//go:embed sweep.html
var sweepText string

// Sweep is policies under conditions that grow worse.
type Sweep struct {
	Header
	Axes []Axis
}

// Axis is one condition for one workload.
type Axis struct {
	Workload string      `json:"workload"`
	Axis     string      `json:"axis"`
	Unit     string      `json:"unit"`
	Metric   string      `json:"metric"` // whose means the points have; more is better
	Points   []AxisPoint `json:"points"`
	Worst    string      `json:"worst,omitempty"` // label of the point where warm gains least on least-tokens
}

// AxisPoint is one value of the condition.
type AxisPoint struct {
	Label    string                  `json:"label"`
	Setup    string                  `json:"setup"`
	Policies map[string]sim.Interval `json:"policies_ci95"`
	Means    map[string]float64      `json:"policies"`
	// Gain is how many per cent warm is above least-tokens, paired by seed, with its interval; nil without either.
	Gain *sim.Paired `json:"warm_vs_least_tokens_percent,omitempty"`
}

const simplest = "least-tokens"

// Fill computes what runs say of each point.
func Fill(axes []Axis, records []sim.Record) []Axis {
	for i := range axes {
		a := &axes[i]
		least := math.Inf(1)
		for j := range a.Points {
			p := &a.Points[j]
			p.fill(a, records)
			if p.Gain != nil && p.Gain.Diff < least {
				least, a.Worst = p.Gain.Diff, p.Label
			}
		}
	}
	return axes
}

func (p *AxisPoint) fill(a *Axis, records []sim.Record) {
	p.Means, p.Policies = map[string]float64{}, map[string]sim.Interval{}
	var own []sim.Record
	for _, r := range records {
		same := func(x sim.Record) bool { return x.Policy == r.Policy && x.Seed == r.Seed } // a run that several axes share
		if r.Workload == a.Workload && r.Setup == p.Setup && !slices.ContainsFunc(own, same) {
			own = append(own, r)
		}
	}
	for _, s := range sim.Summarize(own) {
		if s.Metric != a.Metric {
			continue
		}
		p.Means[s.Policy], p.Policies[s.Policy] = s.Mean, s.CI95
		if s.Policy == simplest && s.Paired != nil && s.Mean > 0 {
			k := -100 / s.Mean // the difference is theirs less ours
			p.Gain = &sim.Paired{Diff: k * s.Paired.Diff, CI95: sim.Interval{k * s.Paired.CI95[1], k * s.Paired.CI95[0]}}
		}
	}
}

// policies of all points, ours first.
func (a *Axis) policies() (all []string) {
	for _, name := range append(sim.Policies(), sim.Ablations()...) {
		if slices.ContainsFunc(a.Points, func(p AxisPoint) bool { _, ok := p.Means[name]; return ok }) {
			all = append(all, name)
		}
	}
	return all
}

// title says what an axis is about.
func (a *Axis) title() string {
	metric := map[string]string{"output_tok_s": "output tokens a second", "goodput": "goodput"}[a.Metric]
	return fmt.Sprintf("%s, %s (%s): %s", a.Workload, a.Axis, a.Unit, metric)
}

func (a *Axis) figure(p *AxisPoint, policy string) string {
	v, ok := p.Means[policy]
	switch {
	case !ok:
		return "-"
	case a.Metric == "goodput":
		return fmt.Sprintf("%.4f", v)
	}
	return thousands(int(v + .5))
}

func (p *AxisPoint) gain() string {
	if p.Gain == nil {
		return "-"
	}
	return fmt.Sprintf("%+.1f %% [%+.1f, %+.1f]", p.Gain.Diff, p.Gain.CI95[0], p.Gain.CI95[1])
}

// cells are the table of an axis, its head first.
func (a *Axis) cells() (rows [][]string) {
	policies := a.policies()
	rows = append(rows, append(append([]string{a.Axis}, policies...), "warm vs least-tokens"))
	for i := range a.Points {
		p := &a.Points[i]
		row := []string{p.Label}
		for _, policy := range policies {
			row = append(row, a.figure(p, policy))
		}
		rows = append(rows, append(row, p.gain()))
	}
	return rows
}

// worst names the point where warm gains least.
func (a *Axis) worst() string {
	i := slices.IndexFunc(a.Points, func(p AxisPoint) bool { return p.Label == a.Worst })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("worst at %s: %s", a.Worst, a.Points[i].gain())
}

// Table writes each axis for a terminal.
func (s *Sweep) Table(w io.Writer) error {
	for i := range s.Axes {
		a := &s.Axes[i]
		fmt.Fprintf(w, "\n%s\n", a.title())
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		for _, row := range a.cells() {
			for _, cell := range row {
				fmt.Fprintf(t, "%s\t", cell)
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
		fmt.Fprintln(w, a.worst())
	}
	return nil
}

// HTML writes the page.
func (s *Sweep) HTML(w io.Writer) error {
	type part struct {
		Title, Worst string
		Head         []string
		Rows         [][]string
		Legend       []entry
		SVG          template.HTML
	}
	var parts []part
	for i := range s.Axes {
		a := &s.Axes[i]
		drawn, legend, err := a.draw()
		if err != nil {
			return fmt.Errorf("draw %s: %w", a.title(), err)
		}
		cells := a.cells()
		parts = append(parts, part{a.title(), a.worst(), cells[0], cells[1:], legend, template.HTML(drawn)})
	}
	return execute(w, sweepText, struct {
		Header Header
		Parts  []part
	}{s.Header, parts})
}

// draw shows a line a policy over the points, which stand at equal distances.
func (a *Axis) draw() (drawn string, legend []entry, err error) {
	p := newPlot(a.Unit, map[string]string{"output_tok_s": "output tokens a second", "goodput": "% of offered requests"}[a.Metric])
	factor := 1.
	if a.Metric == "goodput" {
		factor = 100
	}
	policies := a.policies()
	colour := paint(policies)
	low := math.Inf(1)
	var names []string
	for _, point := range a.Points {
		names = append(names, point.Label)
	}
	for _, policy := range slices.Backward(policies) {
		var points plotter.XYs
		for i, point := range a.Points {
			if v, ok := point.Means[policy]; ok {
				points = append(points, plotter.XY{X: float64(i), Y: factor * v})
				p.Y.Max, low = max(p.Y.Max, 1.01*factor*v), min(low, factor*v)
			}
		}
		if err := curve(p, points, colours[colour[policy]], policy == ours); err != nil {
			return "", nil, err
		}
		legend = append(legend, entry{policy, hex(colours[colour[policy]])})
	}
	slices.Reverse(legend)
	p.Y.Max = max(p.Y.Max, 1e-9)
	if low > p.Y.Max/2 { // little below: leave it out, or the lines are one
		p.Y.Min = low - (p.Y.Max-low)/2
	}
	drawn, err = named(p, names)
	return drawn, legend, err
}
