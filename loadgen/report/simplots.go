package report

import (
	"cmp"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"slices"

	"github.com/warmpath/warmpath/loadgen/sim"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const ours = "warm"

// preferred are the colours of policies, so that one has the same on each plot as far as they go round.
var preferred = map[string]int{ours: 0, "precise-2026": 1, "least-tokens": 2, "greedy": 3, "dynamo": 4, "precise-2025": 5, "round-robin": 6}

// paint gives each policy a colour of its own, ours always the same.
func paint(policies []string) map[string]int {
	at, taken := map[string]int{}, map[int]bool{}
	for _, p := range policies {
		if c, ok := preferred[p]; ok {
			at[p], taken[c] = c, true
		}
	}
	for _, p := range policies {
		if _, ok := at[p]; ok {
			continue
		}
		c := 1
		for taken[c] && c < len(colours)-1 {
			c++
		}
		at[p], taken[c] = c, true
	}
	return at
}

// curve is one line with its points.
func curve(p *plot.Plot, points plotter.XYs, c color.RGBA, wide bool) error {
	l, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return fmt.Errorf("draw line: %w", err)
	}
	l.Color, l.Width = c, vg.Points(1.4)
	if wide {
		l.Width = vg.Points(2.4)
	}
	dots.Color, dots.Shape, dots.Radius = c, draw.CircleGlyph{}, vg.Points(2)
	p.Add(l, dots)
	return nil
}

// ttft draws a figure of TTFT against offered load, a line a policy, ours above the others.
func (v *view) ttft(of func(*sim.Point) float64) func() (string, error) {
	return func() (string, error) {
		p := newPlot("offered load, requests a second", "seconds (log scale)")
		low, high := math.Inf(1), 0.
		left, right := math.Inf(1), 0.
		for _, policy := range slices.Backward(v.shown) {
			points, closed := v.points(policy, of)
			if len(points) == 0 {
				return "", nil
			}
			if closed {
				p.X.Label.Text = "sessions at once"
			}
			for _, xy := range points {
				low, high = min(low, xy.Y), max(high, xy.Y)
				left, right = min(left, xy.X), max(right, xy.X)
			}
			if err := curve(p, points, colours[v.colours[policy]], policy == ours); err != nil {
				return "", err
			}
		}
		if left > right/3 { // little below: leave it out
			p.X.Min = left - .05*(right-left)
		}
		logScale(p, low, high)
		return svg(p)
	}
}

// logScale shows all decades that are begun between two values, at least a factor of ten.
func logScale(p *plot.Plot, low, high float64) {
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decadeTicks{}
	p.Y.Min, p.Y.Max = .9*low, 1.1*high
	if p.Y.Max < 10*p.Y.Min {
		middle := math.Sqrt(p.Y.Min * p.Y.Max)
		p.Y.Min, p.Y.Max = middle/math.Sqrt(10), middle*math.Sqrt(10)
	}
}

// points are the means over seeds; those without an answer are left out, which a log scale cannot show.
func (v *view) points(policy string, of func(*sim.Point) float64) (points plotter.XYs, closed bool) {
	var sums []struct{ x, y, n float64 }
	for _, r := range v.part.Records {
		if r.Policy != policy {
			continue
		}
		for i := range r.ByLoad {
			if i == len(sums) {
				sums = append(sums, struct{ x, y, n float64 }{})
			}
			p, s := &r.ByLoad[i], &sums[i]
			closed = closed || p.Concurrency > 0
			if y := of(p); y > 0 {
				s.x, s.y, s.n = s.x+p.Rate+float64(p.Concurrency), s.y+y, s.n+1
			}
		}
	}
	for _, s := range sums {
		if s.n > 0 {
			points = append(points, plotter.XY{X: s.x / s.n, Y: s.y / s.n})
		}
	}
	slices.SortFunc(points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
	return points, closed
}

// mark is a figure with its interval, in a row of its own.
type mark struct {
	name      string
	mean      float64
	low, high float64
	colour    color.RGBA
}

// marks draws rows of points with intervals, first on top; nothing of no rows.
func marks(rows []mark, x string, zero bool) (string, error) {
	if len(rows) == 0 {
		return "", nil
	}
	p := newPlot(x, "")
	p.X.Min, p.X.Max = math.Inf(1), math.Inf(-1)
	if zero {
		p.X.Min, p.X.Max = 0, 0
	}
	var names []string
	for i, m := range slices.Backward(rows) {
		y := float64(len(rows) - 1 - i)
		names = append(names, m.name)
		span, err := plotter.NewLine(plotter.XYs{{X: m.low, Y: y}, {X: m.high, Y: y}})
		if err != nil {
			return "", fmt.Errorf("draw interval: %w", err)
		}
		dot, err := plotter.NewScatter(plotter.XYs{{X: m.mean, Y: y}})
		if err != nil {
			return "", fmt.Errorf("draw mean: %w", err)
		}
		span.Color, span.Width = m.colour, vg.Points(2)
		dot.Color, dot.Shape, dot.Radius = m.colour, draw.CircleGlyph{}, vg.Points(3.2)
		p.Add(span, dot)
		p.X.Min, p.X.Max = min(p.X.Min, m.low), max(p.X.Max, m.high)
	}
	pad := .05 * max(p.X.Max-p.X.Min, 1e-6)
	p.X.Min, p.X.Max = p.X.Min-pad, p.X.Max+pad
	if zero {
		line, _ := plotter.NewLine(plotter.XYs{{X: 0, Y: -.6}, {X: 0, Y: float64(len(rows)) - .4}})
		line.Color, line.Width = colours[0], vg.Points(1)
		p.Add(line)
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -.6, float64(len(rows))-.4
	p.Y.Tick.Label.XAlign, p.Y.Tick.Label.YAlign = text.XRight, text.YCenter
	p.X.Tick.Marker = evenTicks{}
	vertical := plotter.NewGrid()
	vertical.Horizontal.Width, vertical.Vertical.Color, vertical.Vertical.Dashes = 0, rule, nil
	p.Add(vertical)
	height := min(2.2*vg.Centimeter+vg.Length(len(rows))*.62*vg.Centimeter, 12*vg.Centimeter)
	return svgOf(p, plotWidth, height)
}

// shade is a policy's colour, grey where it has no line.
func (v *view) shade(policy string) color.RGBA {
	if i, ok := v.colours[policy]; ok {
		return colours[i]
	}
	return color.RGBA{140, 140, 140, 255}
}

// ranked draws one metric of each policy.
func (v *view) ranked(metric, x string, factor float64) (string, error) {
	var rows []mark
	for _, p := range v.policies {
		s := v.figure(p, metric)
		rows = append(rows, mark{p, factor * s.Mean, factor * s.CI95[0], factor * s.CI95[1], v.shade(p)})
	}
	return marks(rows, x, false)
}

func (v *view) hits() (string, error) { return v.ranked("hit_ratio", "% of prompt tokens", 100) }

func (v *view) goodput() (string, error) {
	return v.ranked("goodput", "% of offered requests within both objectives", 100)
}

// against draws the paired differences to ours; nothing where there is nothing to compare.
func (v *view) against(metric, x string, factor float64) (string, error) {
	var rows []mark
	for _, p := range v.policies {
		if d := v.figure(p, metric).Paired; d != nil {
			rows = append(rows, mark{p, factor * d.Diff, factor * d.CI95[0], factor * d.CI95[1], v.shade(p)})
		}
	}
	return marks(rows, x, true)
}

func (v *view) goodputAgainstWarm() (string, error) {
	return v.against("goodput", "percentage points against warm (left of the line: warm is better)", 100)
}

func (v *view) throughputAgainstWarm() (string, error) {
	warm := v.figure(ours, "output_tok_s").Mean
	return v.against("output_tok_s", "% of warm's output tokens a second (left of the line: warm is better)", 100/max(warm, 1e-9))
}

// loads draws the requests under way on each engine over time, a small plot a policy, all to one scale.
func (v *view) loads() (all []figure, err error) {
	top, end := 0., 0.
	for i := range v.part.Records {
		if l := v.part.Records[i].Load; l != nil && slices.Contains(v.shown, v.part.Records[i].Policy) {
			top = max(top, l.Top)
			end = max(end, l.Step*float64(len(l.Engines[0])))
		}
	}
	for _, policy := range v.shown {
		i := slices.IndexFunc(v.part.Records, func(r sim.Record) bool { return r.Policy == policy && r.Load != nil })
		if i < 0 {
			continue
		}
		drawn, err := v.load(&v.part.Records[i], top, end)
		if err != nil {
			return nil, err
		}
		caption := fmt.Sprintf("%s, busiest engine %.2f x mean", policy, v.part.Records[i].Metrics.BusyMaxOverMean)
		all = append(all, figure{caption, template.HTML(drawn)})
	}
	return all, nil
}

func (v *view) load(r *sim.Record, top, end float64) (string, error) {
	p := newPlot("virtual time, minutes", "requests")
	p.X.Max, p.Y.Max = end/60, max(top, 1)
	c := colours[v.colours[r.Policy]]
	thin := c
	for _, part := range []*uint8{&thin.R, &thin.G, &thin.B} { // half way to white
		*part = uint8((int(*part) + 255) / 2)
	}
	mean := make(plotter.XYs, len(r.Load.Engines[0]))
	for e := range r.Load.Engines {
		points := make(plotter.XYs, len(mean))
		for i := range points {
			y := r.Load.At(e, i)
			points[i] = plotter.XY{X: (float64(i) + .5) * r.Load.Step / 60, Y: y}
			mean[i].X, mean[i].Y = points[i].X, mean[i].Y+y/float64(len(r.Load.Engines))
		}
		l, err := plotter.NewLine(points)
		if err != nil {
			return "", fmt.Errorf("draw load: %w", err)
		}
		l.Color, l.Width = thin, vg.Points(.7)
		p.Add(l)
	}
	l, err := plotter.NewLine(mean)
	if err != nil {
		return "", fmt.Errorf("draw load: %w", err)
	}
	l.Color, l.Width = c, vg.Points(1.6)
	p.Add(l)
	return svgOf(p, 9*vg.Centimeter, 5.6*vg.Centimeter)
}
