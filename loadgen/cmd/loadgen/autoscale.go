package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/loadgen/elastic"
	"github.com/warmpath/warmpath/loadgen/report"
)

const autoscaleHelp = `Runs a fleet of prefill and decode engines in virtual time under one autoscaler after another, on the same requests,
with the same engines and start-up times, and prints what became of the requests and what the fleet cost.

The engines' true speed is off the scalers' prior by up to 20 % and told to nobody; starts take about --startup, 2 % of
them three times as long; routers report each second, engines are scraped. Replicas that a published autoscaler gives up
drain before they go, which is more than those do themselves.

Workloads (of an hour where nothing else is said):
  ramp      4 to 20 requests/s in steps and down again: twice llm-d's ramp
  step      2, and from minute 12 on 20 requests/s
  sine      waves, and a spike of 2.5 times the crest
  mixshift  long prompts with short answers, and short ones with long, in turn
  azure     real conversations (Azure 2023), ten times over
  mooncake  real conversations that share prefixes (Mooncake), three times over
  servegen  one day of a production fleet (ServeGen m-large)
Where a public trace is not at hand a generated one stands in, and the table says so.

--service fcfs sends requests to engines as they come; slo holds them in the router until an engine has room within the
objectives, and serves those first that can still be answered in time. Each policy is run under both, so that what the
router gains is not taken for the autoscaler's.`

// autoscaleOptions are the flags of loadgen autoscale.
type autoscaleOptions struct {
	workload, policies, variants, service, startup, headroom string
	seeds                                                    int
	slo, trace, lengths, window                              string
	rate                                                     float64
	out                                                      outputOptions
}

func autoscaleCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen autoscale", flag.ContinueOnError)
	var o autoscaleOptions
	fs.StringVar(&o.workload, "workload", "", "workloads with commas, or all")
	fs.StringVar(&o.policies, "policies", elastic.Ours, "autoscalers to compare, with commas, or all")
	fs.StringVar(&o.variants, "variants", elastic.Default, "default, tuned or both with a comma, of those that have both")
	fs.StringVar(&o.startup, "startup", "110s", "from order to service, several with commas")
	fs.StringVar(&o.service, "service", "fcfs,slo", "orders of service in the router")
	fs.StringVar(&o.headroom, "headroom", "", "run ours with these headrooms too, with commas: the front of cost against attainment")
	fs.IntVar(&o.seeds, "seeds", 1, "runs of each policy, with seeds 1 to N")
	fs.StringVar(&o.slo, "slo", "1.5s,30ms", "what a good answer keeps: time to the first token, and mean time between two tokens")
	fs.StringVar(&o.trace, "trace", "", "trace file to replay in place of the workload's own, plain or .gz: Mooncake, Azure or ServeGen rates")
	fs.StringVar(&o.lengths, "lengths", "", "file of lengths beside ServeGen rates; empty is the one beside the rates")
	fs.StringVar(&o.window, "window", "", "part of a trace, FROM-TO as in 216h-240h; empty is all, of ServeGen its tenth day")
	fs.Float64Var(&o.rate, "rate-scale", 0, "factor on the rate of requests; 0 is the workload's own, so that its peak needs 5 to 40 replicas")
	o.out.register(fs, "")
	return &ffcli.Command{
		Name: "autoscale", ShortUsage: "loadgen autoscale --workload ramp [flags]", FlagSet: fs,
		ShortHelp: "Compare autoscalers in virtual time", LongHelp: autoscaleHelp,
		Exec: flagsOnly("workloads are given as --workload ramp", o.run),
	}
}

func (o *autoscaleOptions) run(ctx context.Context) error {
	grid, err := o.grid()
	if err != nil {
		return err
	}
	for _, w := range grid.Works {
		prefill, decode := elastic.Peak(&w, grid.SLO)
		fmt.Fprintf(os.Stderr, "%s: %s; rate x%g, %.0f requests, %v; the busiest minute needs about %.0f prefill and %.0f decode replicas.\n",
			w.Name, w.What, w.Rate, w.Count(), w.Until, prefill, decode)
	}
	file, err := openScalings(ctx, o.out.json, grid)
	if err != nil {
		return err
	}
	records, err := file.run(ctx, grid.Cells())
	if err != nil {
		return err
	}
	if err := scalingTable(elastic.Summarize(records)); err != nil {
		return err
	}
	return writePage(pagePath(o.out.report, o.out.json), func() report.Page {
		return &report.Autoscale{Header: file.Header, Records: records, Fronts: elastic.Fronts(records),
			SLO: fmt.Sprintf("%v to the first token, %v between two tokens", grid.SLO.TTFT, grid.SLO.ITL)}
	})
}

// grid is what the flags ask for.
func (o *autoscaleOptions) grid() (g elastic.Grid, err error) {
	if g.SLO, err = (&sceneOptions{slo: o.slo}).objective(); err != nil {
		return g, err
	}
	if o.seeds < 1 {
		return g, fmt.Errorf("--seeds %d: at least one run of each policy is needed", o.seeds)
	}
	g.Seeds = o.seeds
	if g.Works, err = o.works(); err != nil {
		return g, err
	}
	all := elastic.Policies()
	if g.Policies, err = among("--policies", o.policies, all, all); err != nil {
		return g, err
	}
	if g.Variants, err = among("--variants", o.variants, []string{elastic.Default, elastic.Tuned}, nil); err != nil {
		return g, err
	}
	services, err := among("--service", o.service, []string{string(elastic.FCFS), string(elastic.SLO)}, nil)
	if err != nil {
		return g, err
	}
	for _, s := range services {
		g.Services = append(g.Services, elastic.Service(s))
	}
	for _, s := range strings.Split(o.startup, ",") {
		d, err := time.ParseDuration(strings.TrimSpace(s))
		if err != nil || d <= 0 {
			return g, fmt.Errorf("--startup %q: durations above 0 are needed, as in 30s,110s", o.startup)
		}
		g.Startups = append(g.Startups, d)
	}
	for _, s := range strings.FieldsFunc(o.headroom, func(r rune) bool { return r == ',' }) {
		h, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || !(h > 0 && h < 10) {
			return g, fmt.Errorf("--headroom %q: factors from 0 to 10 are needed, as in 0.9,1.1", o.headroom)
		}
		g.Headroom = append(g.Headroom, h)
	}
	return g, nil
}

// among reads a list of names. all, where not nil, is what the word all stands for.
func among(name, list string, known, all []string) (names []string, err error) {
	if list == "all" && all != nil {
		return all, nil
	}
	for _, n := range strings.Split(list, ",") {
		n = strings.TrimSpace(n)
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("%s: %q is none of %s", name, n, strings.Join(known, ", "))
		}
		names = append(names, n)
	}
	return names, nil
}

func (o *autoscaleOptions) works() (all []elastic.Work, err error) {
	if o.workload == "" {
		return nil, errors.New("give --workload ramp; --help lists the workloads")
	}
	names, err := among("--workload", o.workload, elastic.Names(), elastic.Names())
	if err != nil {
		return nil, err
	}
	from := elastic.Source{Trace: o.trace, Lengths: o.lengths, Rate: o.rate}
	if o.trace != "" && len(names) > 1 {
		return nil, errors.New("--trace replaces one workload's trace: name one workload beside it")
	}
	if o.window != "" {
		first, last, ok := strings.Cut(o.window, "-")
		var errs [2]error
		from.From, errs[0] = time.ParseDuration(first)
		from.To, errs[1] = time.ParseDuration(last)
		if !ok || errors.Join(errs[:]...) != nil || from.From < 0 || from.To <= from.From {
			return nil, fmt.Errorf("--window %q: two times of the trace are needed, as in 216h-240h", o.window)
		}
	}
	if o.rate < 0 {
		return nil, fmt.Errorf("--rate-scale %g: a factor above 0 is needed", o.rate)
	}
	for _, name := range names {
		w, err := elastic.Find(name, from)
		if err != nil {
			return nil, err
		}
		if w.Until == 0 {
			return nil, fmt.Errorf("%s: no requests between %v and %v", name, from.From, from.To)
		}
		all = append(all, w)
	}
	return all, nil
}

// scalingTable prints what people look at first: each workload, start-up time and order of service with its policies.
func scalingTable(all []elastic.Summary) error {
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	last := ""
	for i := range all {
		s := &all[i]
		if s.Metric != "gpu_s" {
			continue
		}
		if scene := fmt.Sprintf("%s, start-up %g s, service %s, %d seeds", s.Workload, s.Startup, s.Service, s.Seeds); scene != last {
			last = scene
			fmt.Fprintf(w, "\n%s\nPOLICY\tGOOD\tOF FEASIBLE\tGPU H\tREPLICAS\tFLIPS/H\tWORST 5 MIN\tTTFT P99.9\tLOST\tGPU OF OURS\n", scene)
		}
		at := func(metric string) elastic.Summary {
			j := slices.IndexFunc(all, func(x elastic.Summary) bool { return x.Group == s.Group && x.Metric == metric })
			return all[j]
		}
		name := s.Policy
		if s.Variant == elastic.Tuned {
			name += " (tuned)"
		}
		if s.Headroom > 0 {
			name += fmt.Sprintf(" x%g", s.Headroom)
		}
		share := ""
		if s.Paired != nil {
			share = fmt.Sprintf("%.2f", s.Paired.Share)
		}
		fmt.Fprintf(w, "%s\t%.2f %%\t%.2f %%\t%.1f\t%.1f\t%.1f\t%.1f %%\t%.1f s\t%.0f\t%s\n", name, 100*at("joint_attainment").Mean,
			100*at("joint_attainment_feasible").Mean, s.Mean/3600, at("avg_replicas").Mean, at("flips_per_h").Mean,
			100*at("worst_5min").Mean, at("ttft_p999_s").Mean, at("lost_requests").Mean, share)
	}
	return w.Flush()
}
