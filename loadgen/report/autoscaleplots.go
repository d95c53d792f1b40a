package report

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/warmpath/warmpath/loadgen/elastic"
)

var grey = color.RGBA{150, 150, 150, 255}

// pareto draws each policy's cost and attainment with intervals, and the line of ours over its headrooms.
func (s *scene) pareto() (string, error) {
	p := newPlot("GPU hours", "good, of feasible")
	p.Y.Tick.Marker = evenTicks{percent: true}
	var labels plotter.XYLabels
	least, most, low, high := 0., 0., 1., 0.
	for _, name := range s.policies {
		good, gpu := s.figure(name, "joint_attainment_feasible"), s.figure(name, "gpu_s")
		x, y := gpu.Mean/3600, good.Mean
		shade, size := grey, vg.Points(3)
		if name == elastic.Ours {
			shade, size = colours[0], vg.Points(4.5)
		}
		if err := dot(p, x, y, shade, size); err != nil {
			return "", err
		}
		labels.XYs, labels.Labels = append(labels.XYs, plotter.XY{X: x, Y: y}), append(labels.Labels, name)
		if least == 0 || x < least {
			least = x
		}
		most, low, high = max(most, x), min(low, y), max(high, y)
	}
	if s.front != nil {
		var points plotter.XYs
		for _, q := range byCost(s.front.Points) {
			points = append(points, plotter.XY{X: q.GPU / 3600, Y: q.Feasible})
			most, low = max(most, q.GPU/3600), min(low, q.Feasible)
		}
		if err := curve(p, points, colours[0], false); err != nil {
			return "", err
		}
	}
	if err := labelled(p, labels); err != nil {
		return "", err
	}
	p.X.Max, p.Y.Min, p.Y.Max = most*1.25+.1, max(0, low-.05), min(1.005, high+.03)
	return svg(p)
}

// labelled writes names beside points.
func labelled(p *plot.Plot, labels plotter.XYLabels) error {
	l, err := plotter.NewLabels(labels)
	if err != nil {
		return fmt.Errorf("draw labels: %w", err)
	}
	for i := range l.TextStyle {
		l.TextStyle[i].Font.Variant, l.TextStyle[i].Font.Size = "Sans", vg.Points(8)
		l.TextStyle[i].Color, l.TextStyle[i].YAlign = ink, text.YCenter
	}
	l.Offset.X = vg.Points(6)
	p.Add(l)
	return nil
}

func dot(p *plot.Plot, x, y float64, c color.RGBA, size vg.Length) error {
	s, err := plotter.NewScatter(plotter.XYs{{X: x, Y: y}})
	if err != nil {
		return fmt.Errorf("draw point: %w", err)
	}
	s.Color, s.Shape, s.Radius = c, draw.CircleGlyph{}, size
	p.Add(s)
	return nil
}

const mostLabels = 6 // of decisions in a figure

// capacity draws a role: busy replicas in blue, those that serve in orange, with those that start in thin orange, and a
// mark where the number ordered changed, with the rule where it is told and the change is among the greatest.
func capacity(s *elastic.Series, role string) (string, error) {
	p := newPlot("minutes", "replicas")
	minutes := func(i int) float64 { return (float64(i) + .5) * s.Step / 60 }
	var busy, serving, all plotter.XYs
	for i := range s.Rate {
		n := float64(s.Serving[role][i])
		busy = append(busy, plotter.XY{X: minutes(i), Y: around(s.Demand[role], i, int(30/s.Step))})
		serving = append(serving, plotter.XY{X: minutes(i), Y: n})
		all = append(all, plotter.XY{X: minutes(i), Y: n + float64(s.Starting[role][i])})
		p.Y.Max = max(p.Y.Max, all[i].Y, busy[i].Y)
	}
	for i, l := range []struct {
		points plotter.XYs
		colour color.RGBA
		width  float64
	}{{busy, colours[1], 1}, {all, colours[4], .8}, {serving, colours[0], 1.8}} {
		line, err := plotter.NewLine(l.points)
		if err != nil {
			return "", fmt.Errorf("draw line: %w", err)
		}
		line.Color, line.Width = l.colour, vg.Points(l.width)
		if i > 0 {
			line.StepStyle = plotter.MidStep
		}
		p.Add(line)
	}
	p.X.Max, p.Y.Max = minutes(len(s.Rate)), 1.15*p.Y.Max+1
	if err := decided(p, s, role); err != nil {
		return "", err
	}
	return svg(p)
}

// around is the mean of values from so many before to as many after one.
func around(values []float64, at, reach int) float64 {
	near, sum := values[max(0, at-reach):min(len(values), at+reach+1)], 0.
	for _, v := range near {
		sum += v
	}
	return sum / float64(len(near))
}

// decided marks decisions.
func decided(p *plot.Plot, s *elastic.Series, role string) error {
	var own []elastic.Decided
	var marks plotter.XYs
	for _, d := range s.Decisions {
		if d.Role == role {
			own = append(own, d)
			marks = append(marks, plotter.XY{X: d.At / 60, Y: float64(d.To)})
		}
	}
	if len(own) == 0 {
		return nil
	}
	dots, err := plotter.NewScatter(marks)
	if err != nil {
		return fmt.Errorf("draw decisions: %w", err)
	}
	dots.Color, dots.Shape, dots.Radius = ink, draw.PyramidGlyph{}, vg.Points(1.6)
	p.Add(dots)
	slices.SortStableFunc(own, func(a, b elastic.Decided) int { return size(b) - size(a) })
	var labels plotter.XYLabels
	for _, d := range own[:min(mostLabels, len(own))] {
		if d.Rule != "" {
			labels.XYs = append(labels.XYs, plotter.XY{X: d.At / 60, Y: float64(d.To) + .04*p.Y.Max})
			labels.Labels = append(labels.Labels, d.Rule)
		}
	}
	if len(labels.XYs) == 0 {
		return nil
	}
	return labelled(p, labels)
}

func size(d elastic.Decided) int { return max(d.To-d.From, d.From-d.To) }

// attained draws the share of good answers, and the queue in the router beneath as a share of its greatest.
func attained(s *elastic.Series) (string, error) {
	p := newPlot("minutes", "share of good answers")
	p.Y.Tick.Marker = evenTicks{percent: true}
	var good plotter.XYs
	for i, g := range s.Good {
		if g >= 0 {
			good = append(good, plotter.XY{X: (float64(i) + .5) * s.Step / 60, Y: g})
		}
	}
	if len(good) == 0 {
		return "", nil
	}
	l, err := plotter.NewLine(good)
	if err != nil {
		return "", fmt.Errorf("draw line: %w", err)
	}
	l.Color, l.Width = colours[2], vg.Points(1.4)
	p.Add(l)
	p.X.Max, p.Y.Max = float64(len(s.Good))*s.Step/60, 1.02
	return svgOf(p, plotWidth, 5*vg.Centimeter)
}
