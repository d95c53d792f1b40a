package report

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"

	"github.com/warmpath/warmpath/loadgen/run"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colours that people with colour-blindness can tell apart (Okabe and Ito, 2008), one an arm.
var colours = []color.RGBA{
	{213, 94, 0, 255}, {0, 114, 178, 255}, {0, 158, 115, 255}, {204, 121, 167, 255}, {230, 159, 0, 255}, {86, 180, 233, 255},
	{110, 90, 70, 255}, // not of theirs: a seventh that is neither grey nor like the others
}

func colour(arm int) color.RGBA { return colours[arm%len(colours)] }

func hex(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

const plotWidth, plotHeight = 15 * vg.Centimeter, 8.5 * vg.Centimeter

var (
	ink  = color.Gray{60}
	rule = color.Gray{225}
)

// newPlot has the look that all plots share: no box, light rules, small grey labels. The page has one legend for all.
func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.X.Min, p.Y.Min = 0, 0
	for _, s := range []*text.Style{&p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		s.Font.Variant = "Sans"
		s.Font.Size = vg.Points(9)
		s.Color = ink
	}
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Tick.Marker = evenTicks{}
		a.LineStyle.Color, a.Tick.LineStyle.Color = rule, rule
		a.Label.Padding = vg.Points(4)
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = rule
	p.Add(grid)
	return p
}

// svg draws a plot as an svg element to be put into a page.
func svg(p *plot.Plot) (string, error) { return svgOf(p, plotWidth, plotHeight) }

func svgOf(p *plot.Plot, width, height vg.Length) (string, error) {
	canvas := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(canvas), 0, -vg.Points(10), 0, -vg.Points(4))) // room for the last labels
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return "", fmt.Errorf("draw plot: %w", err)
	}
	at := bytes.Index(buf.Bytes(), []byte("<svg")) // behind the XML declaration
	return string(buf.Bytes()[max(at, 0):]), nil
}

func line(points plotter.XYs, arm int) (*plotter.Line, error) {
	l, err := plotter.NewLine(points)
	if err != nil {
		return nil, fmt.Errorf("draw line: %w", err)
	}
	l.Color, l.Width = colour(arm), vg.Points(1.6)
	return l, nil
}

// lines draws one line an arm.
func (c *Comparison) lines(p *plot.Plot, points func(*run.Result) plotter.XYs) (string, error) {
	for i, a := range c.Arms {
		xy := points(a.Result)
		if len(xy) == 0 {
			continue
		}
		l, err := line(xy, i)
		if err != nil {
			return "", err
		}
		p.Add(l)
	}
	return svg(p)
}

// ttftCDF shows for each policy the share of requests whose first token came within a time.
func (c *Comparison) ttftCDF() (string, error) {
	p := newPlot("TTFT, seconds (logarithmic)", "share of requests")
	p.Y.Max = 1
	p.Y.Tick.Marker = evenTicks{percent: true}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decadeTicks{}
	p.X.Min, p.X.Max = .1, 1
	return c.lines(p, func(r *run.Result) plotter.XYs {
		ttft := served(r, func(o *run.Outcome) float64 { return max(.01, o.TTFT().Seconds()) })
		slices.Sort(ttft)
		points := make(plotter.XYs, 0, 202)
		step := max(1, len(ttft)/200)
		for i := 0; i < len(ttft); i += step {
			points = append(points, plotter.XY{X: ttft[i], Y: float64(i+1) / float64(len(ttft))})
		}
		if len(ttft) > 0 {
			points = append(points, plotter.XY{X: ttft[len(ttft)-1], Y: 1})
		}
		return points
	})
}

// ttftOverTime shows for each policy the 90th percentile of TTFT in windows of the trace.
func (c *Comparison) ttftOverTime() (string, error) {
	window := max(1, math.Ceil(c.Seconds/20))
	p := newPlot(fmt.Sprintf("trace time, seconds (windows of %.0f s)", window), "TTFT p90, seconds")
	p.X.Max = c.Seconds
	return c.lines(p, func(r *run.Result) plotter.XYs {
		windows := map[int][]float64{}
		for _, o := range r.Outcomes {
			if o.Err == nil {
				w := int(o.Intended.Seconds() / window)
				windows[w] = append(windows[w], o.TTFT().Seconds())
			}
		}
		var points plotter.XYs
		for w, ttft := range windows {
			slices.Sort(ttft)
			points = append(points, plotter.XY{X: (float64(w) + .5) * window, Y: ttft[(9*len(ttft)-1)/10]})
		}
		slices.SortFunc(points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
		return points
	})
}

// hitRatios shows one bar a policy.
func (c *Comparison) hitRatios() (string, error) {
	p := newPlot("", "hit ratio, %")
	var names []string
	for i, a := range c.Arms {
		hit := 100 * a.Result.Summary().HitRatio
		bar, err := plotter.NewBarChart(plotter.Values{hit}, vg.Points(42))
		if err != nil {
			return "", fmt.Errorf("draw bar: %w", err)
		}
		bar.Color, bar.LineStyle.Width, bar.XMin = colour(i), 0, float64(i)
		value, err := plotter.NewLabels(plotter.XYLabels{
			XYs: plotter.XYs{{X: float64(i), Y: hit}}, Labels: []string{fmt.Sprintf("%.1f %%", hit)},
		})
		if err != nil {
			return "", fmt.Errorf("draw label: %w", err)
		}
		style := p.X.Tick.Label
		style.YAlign, style.Font.Size = text.YBottom, vg.Points(10)
		value.TextStyle[0], value.Offset.Y = style, vg.Points(3)
		p.Add(bar, value)
		names = append(names, a.Policy)
		p.Y.Max = max(p.Y.Max, 1.15*hit, 1)
	}
	return named(p, names)
}

// requestsPerEngine shows a group of bars an engine, one bar a policy.
func (c *Comparison) requestsPerEngine() (string, error) {
	p := newPlot("engine", "requests")
	engines := len(c.Engines)
	width := plotWidth * .8 / vg.Length(max(1, engines*(len(c.Arms)+1)))
	for i, a := range c.Arms {
		var counts plotter.Values
		for _, n := range a.Result.Summary(c.Engines...).PerEngine[:engines] {
			counts = append(counts, float64(n))
		}
		if len(counts) == 0 {
			continue
		}
		bars, err := plotter.NewBarChart(counts, width)
		if err != nil {
			return "", fmt.Errorf("draw bars: %w", err)
		}
		bars.Color, bars.LineStyle.Width = colour(i), 0
		bars.Offset = width * vg.Length(float64(i)-float64(len(c.Arms)-1)/2)
		p.Add(bars)
		p.Y.Max = max(p.Y.Max, 1.05*slices.Max(counts))
	}
	var names []string
	for i := range engines {
		names = append(names, fmt.Sprint(i))
	}
	return named(p, names)
}

// named draws a plot of bars at 0, 1, ... with their names below.
func named(p *plot.Plot, names []string) (string, error) {
	if len(names) > 0 {
		p.NominalX(names...)
		p.X.Min, p.X.Max = -.6, float64(len(names))-.4
	}
	return svg(p)
}

func served(r *run.Result, value func(*run.Outcome) float64) (out []float64) {
	for i := range r.Outcomes {
		if r.Outcomes[i].Err == nil {
			out = append(out, value(&r.Outcomes[i]))
		}
	}
	return out
}
