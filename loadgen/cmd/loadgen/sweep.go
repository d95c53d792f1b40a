package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/sim"
)

const sweepHelp = `Degrades one condition at a time and simulates: how much does each policy lose, and is warm ever worse than least-tokens?

  loadgen sweep                                       everything, W1 and W8 with 3 s of jitter: 360 runs
  loadgen sweep --axes lag,loss --workload W1 --seeds 1

Axes (--axes with commas, or all):
  lag         events are visible after 0, 20ms, 50ms, 200ms, 1s, 5s
  loss        0, 0.1 %, 1 % of event batches are lost on their way, and replayed when the gap is seen
  lost        the same shares are lost for good: engines without a replay endpoint
  block-size  16 and 64 tokens
  kv          caches of half, once and twice the size
  slow        one engine takes twice as long as its peers
  outage      one engine is lost for a fifth of the run, and returns with an empty cache
  scale       step times x 1, 1.13, 1.2

A run that several axes share is run once; with --json runs are kept, and not run again.`

// axis is one condition that is degraded.
type axis struct {
	name, unit string
	points     []axisPoint
}

type axisPoint struct {
	label  string
	change func(s *sim.Scene)
}

// axes are all conditions. Each has a point that is the scene as it is.
func axes() []axis {
	lag := func(d time.Duration) axisPoint {
		return axisPoint{fmt.Sprint(d), func(s *sim.Scene) {
			if s.Fleet.Lag = d; d == 0 {
				s.Fleet.Lag = -1 // none; 0 is the default
			}
		}}
	}
	losses := func(name string, forGood bool) axis {
		a := axis{name: name, unit: "share of event batches"}
		for _, share := range []float64{0, .001, .01} {
			a.points = append(a.points, axisPoint{fmt.Sprintf("%g %%", 100*share), func(s *sim.Scene) {
				s.Fleet.Loss, s.Fleet.NoReplay = share, forGood && share > 0
			}})
		}
		return a
	}
	kv := func(factor float64) axisPoint {
		return axisPoint{fmt.Sprintf("x%g", factor), func(s *sim.Scene) { s.Fleet.KV = cmp.Or(s.Fleet.KV, 1) * factor }}
	}
	blocks := func(size int) axisPoint {
		return axisPoint{fmt.Sprint(size), func(s *sim.Scene) { s.Fleet.BlockSize = size }}
	}
	scale := func(factor float64) axisPoint {
		return axisPoint{fmt.Sprintf("x%g", factor), func(s *sim.Scene) { s.Scale = factor }}
	}
	asItIs := func(label string) axisPoint { return axisPoint{label, func(*sim.Scene) {}} }
	return []axis{
		{"lag", "time until events are visible", []axisPoint{lag(0), asItIs("20ms"), lag(50 * time.Millisecond), lag(200 * time.Millisecond),
			lag(time.Second), lag(5 * time.Second)}},
		losses("loss", false),
		losses("lost", true),
		{"block-size", "tokens per KV block", []axisPoint{blocks(16), blocks(64)}},
		{"kv", "KV tokens of each engine", []axisPoint{kv(.5), kv(1), kv(2)}},
		{"slow", "step times of one engine", []axisPoint{asItIs("x1"), {"x2", func(s *sim.Scene) { s.Fleet.Slow = map[int]float64{0: 2} }}}},
		{"outage", "one engine away", []axisPoint{asItIs("none"), {"a fifth of the run", outage}}},
		{"scale", "step times of all engines", []axisPoint{scale(1), scale(1.13), scale(1.2)}},
	}
}

// outage loses an engine from two to three fifths of the time over which requests arrive.
func outage(s *sim.Scene) {
	w := s.Make(1)
	length := w.Length().Round(time.Second)
	s.Fleet.Outages = []sim.Outage{{Engine: 0, From: length * 2 / 5, To: length * 3 / 5}}
}

// parseAxes reads --axes.
func parseAxes(list string) ([]axis, error) {
	all := axes()
	if list == "all" {
		return all, nil
	}
	var chosen []axis
	var names []string
	for _, a := range all {
		names = append(names, a.name)
	}
	for name := range strings.SplitSeq(list, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, fmt.Errorf("--axes: %q is none of %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// sweepPolicies are ours, the simplest that is good, and the best two of each workload.
func sweepPolicies(workload string) []string {
	if strings.HasPrefix(workload, "W1") || workload == "W2" {
		return []string{"warm", "least-tokens", "precise-2026", "precise-2025"}
	}
	return []string{"warm", "least-tokens", "dynamo", "greedy"}
}

// sweepOptions are the flags of loadgen sweep.
type sweepOptions struct {
	sceneOptions
	axes     string
	policies string
	seeds    int
	out      outputOptions
}

func sweepCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen sweep", flag.ContinueOnError)
	var o sweepOptions
	o.register(fs)
	fs.StringVar(&o.axes, "axes", "all", "conditions to degrade, with commas, or all")
	fs.StringVar(&o.policies, "policies", "", "policies to compare; empty is warm, least-tokens and the best two baselines of each workload")
	fs.IntVar(&o.seeds, "seeds", 3, "runs of each policy at each point, with seeds 1 to N")
	o.out.register(fs, "bench/sweep.json")
	return &ffcli.Command{
		Name: "sweep", ShortUsage: "loadgen sweep [flags]", FlagSet: fs,
		ShortHelp: "Simulate policies under worse and worse conditions", LongHelp: sweepHelp,
		Exec: flagsOnly("conditions are given as --axes lag", o.run),
	}
}

func (o *sweepOptions) run(ctx context.Context) error {
	if o.workload == "" && o.trace == "" {
		o.workload = "W1,W8"
		if o.jitter == 0 {
			o.jitter = 3 * time.Second
		}
	}
	slo, err := o.objective()
	if err != nil {
		return err
	}
	scenes, err := o.scenes()
	if err != nil {
		return err
	}
	chosen, err := parseAxes(o.axes)
	if err != nil {
		return err
	}
	if o.seeds < 1 {
		return fmt.Errorf("--seeds %d: at least one run of each policy is needed", o.seeds)
	}
	plan, variants := o.plan(scenes, chosen, slo)
	file, err := openResults(ctx, o.out.json, slo, variants)
	if err != nil {
		return err
	}
	var cells []sim.Cell
	for i := range variants {
		policies := sweepPolicies(variants[i].Name)
		if o.policies != "" {
			if policies, err = sim.ParsePolicies(o.policies); err != nil {
				return fmt.Errorf("--policies: %w", err)
			}
		}
		cells = append(cells, sim.Cross(variants[i:i+1], policies, o.seeds, slo)...)
	}
	records, err := file.run(ctx, cells)
	if err != nil {
		return err
	}
	file.Sweep = report.Fill(plan, records)
	if err := file.write(); err != nil {
		return err
	}
	page := &report.Sweep{Header: file.Header, Axes: file.Sweep}
	if err := page.Table(os.Stdout); err != nil {
		return err
	}
	return writePage(pagePath(o.out.report, o.out.json), func() report.Page { return page })
}

// plan lays out the axes of each scene, and the scenes that their points ask for.
func (o *sweepOptions) plan(scenes []sim.Scene, chosen []axis, slo sim.SLO) (plan []report.Axis, variants []sim.Scene) {
	for i := range scenes {
		metric := "goodput"
		if scenes[i].Staged() {
			metric = "output_tok_s"
		}
		for _, a := range chosen {
			line := report.Axis{Workload: scenes[i].Name, Axis: a.name, Unit: a.unit, Metric: metric}
			for _, p := range a.points {
				s := scenes[i]
				p.change(&s)
				s.Variant = a.name + " " + p.label
				line.Points = append(line.Points, report.AxisPoint{Label: p.label, Setup: s.Setup(slo).Key()})
				variants = append(variants, s)
			}
			plan = append(plan, line)
		}
	}
	return plan, variants
}
