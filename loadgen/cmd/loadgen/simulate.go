package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// simulateOptions are the flags of loadgen simulate.
type simulateOptions struct {
	workload, policies, json string
	trace, format            string
	profile                  string
	seeds, pods              int
	prefill, decode          int
	speedup, scale           float64
	jitter                   time.Duration
	ttft, itl                time.Duration
	lag                      time.Duration
	loss                     float64
	kv                       float64
	blockSize                int
}

const simulateHelp = `Runs routing policies on the same arrivals in virtual time: simulated vLLM engines, the router's own decision code,
the real index. An hour of traffic takes seconds. The workloads:

  W1   150 groups of 6,000 shared tokens, 3 to 60 requests a second: a tight cache
  W2   83 groups of 8,000 shared tokens, Llama-3.1-70B on 4 pods
  W3   150 groups of 2,000 shared tokens
  W5   250 groups of 16,000 shared tokens: more than the caches hold
  W6   random prompts on 15 prefill and 10 decode engines; W6-1024: shorter ones, one a second, on one of each
  W7   agents with long system prompts and tool calls
  W8   an hour of real conversations (Mooncake), 16 pods; --jitter 3s takes its arrivals off their grid of 3 s
  W10  a synthetic stand-in for a tool and agent trace
  W11  real conversations without shared prefixes (Azure)

  loadgen simulate --workload W1 --policies warm,random,precise-2026 --seeds 3
  loadgen simulate --trace mine.jsonl.gz --pods 12 --policies all --seeds 1

Where a public trace is not at hand a generated one stands in, and the table says so.`

func simulateCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen simulate", flag.ContinueOnError)
	var o simulateOptions
	fs.StringVar(&o.workload, "workload", "", "one of the workloads above; with --trace none is needed")
	fs.StringVar(&o.policies, "policies", "warm,round-robin,least-tokens,precise-2026", "policies to compare, with commas, or all")
	fs.IntVar(&o.seeds, "seeds", 1, "runs of each policy, with seeds 1 to N")
	fs.StringVar(&o.json, "json", "", "file to write the figures to; runs that it has already are not run again")
	fs.StringVar(&o.trace, "trace", "", "trace file to replay in place of the workload's, plain or .gz")
	fs.StringVar(&o.format, "format", "mooncake", "format of --trace: mooncake or azure")
	fs.IntVar(&o.pods, "pods", 0, "engines of role both; 0 is the workload's own number, or none beside --prefill-pods and --decode-pods")
	fs.IntVar(&o.prefill, "prefill-pods", 0, "engines that compute prompts for others")
	fs.IntVar(&o.decode, "decode-pods", 0, "engines that have prompts computed by others")
	fs.StringVar(&o.profile, "profile", "", "model and machine of the engines, such as qwen3-32b-tp2-h100; empty is the workload's own")
	fs.Float64Var(&o.speedup, "speedup", 1, "how many times faster than recorded a trace arrives")
	fs.DurationVar(&o.jitter, "jitter", 0, "move each arrival of a trace later by up to so much, at random")
	fs.Float64Var(&o.scale, "scale", 0, "factor on the engines' step times; 0 is the workload's own: 1 is measured silicon, 1.2 fits llm-d's published tables best")
	fs.DurationVar(&o.ttft, "slo-ttft", 2*time.Second, "time to the first token that a good answer keeps")
	fs.DurationVar(&o.itl, "slo-itl", 50*time.Millisecond, "mean time between two tokens that a good answer keeps")
	fs.DurationVar(&o.lag, "lag", 0, "time until events are visible in the index; 0 is 20ms")
	fs.Float64Var(&o.loss, "loss", 0, "share of event batches that never arrive")
	fs.Float64Var(&o.kv, "kv", 1, "factor on the engines' KV cache")
	fs.IntVar(&o.blockSize, "block-size", 16, "tokens per KV block")
	return &ffcli.Command{
		Name: "simulate", ShortUsage: "loadgen simulate --workload W1 [flags]", FlagSet: fs,
		ShortHelp: "Compare routing policies in virtual time", LongHelp: simulateHelp,
		Exec: func(ctx context.Context, _ []string) error { return o.run(ctx) },
	}
}

// simulation is the JSON of loadgen simulate.
type simulation struct {
	report.Header
	SLO struct {
		TTFT float64 `json:"ttft_s"`
		ITL  float64 `json:"itl_s"`
	} `json:"slo"`
	Scale   float64       `json:"scale"`
	Trace   string        `json:"trace,omitempty"`
	Fleet   sim.Options   `json:"fleet"`
	Runs    []sim.Record  `json:"runs"`
	Summary []sim.Summary `json:"summary"`
}

func (o *simulateOptions) run(ctx context.Context) error {
	scene, err := o.scene()
	if err != nil {
		return err
	}
	e := sim.Experiment{Scene: scene, Seeds: o.seeds, SLO: sim.SLO{TTFT: o.ttft, ITL: o.itl}}
	if e.Policies, err = sim.ParsePolicies(o.policies); err != nil {
		return err
	}
	out := simulation{Header: report.NewHeader(1, time.Now()), Scale: scene.Scale, Trace: scene.What, Fleet: scene.Fleet}
	out.SLO.TTFT, out.SLO.ITL = o.ttft.Seconds(), o.itl.Seconds()
	if e.Known, err = out.known(o.json); err != nil {
		return err
	}
	var finish func()
	e.Progress, finish = cellProgress(len(e.Policies) * e.Seeds)
	out.Runs = slices.Clone(e.Known) // Run reads Known while runs end
	e.Ended = func(r sim.Record) {
		out.Runs = append(out.Runs, r)
		_ = daemon.WriteJSON(o.json, out) // the last writing is the one that counts
	}
	runs, err := e.Run(ctx)
	finish()
	out.Runs, out.Summary = runs, sim.Summarize(runs)
	if err != nil {
		return errors.Join(err, daemon.WriteJSON(o.json, out))
	}
	fmt.Printf("%s: %s; %d pods, scale %g, %d seeds\n\n", scene.Name, scene.What, scene.Fleet.Engines(), scene.Scale, o.seeds)
	if err := simulationTable(out.Summary, e.Policies); err != nil {
		return err
	}
	return daemon.WriteJSON(o.json, out)
}

// known returns the runs of an earlier file that was about the same.
func (s *simulation) known(path string) ([]sim.Record, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read earlier runs: %w", err)
	}
	var old simulation
	if err := json.Unmarshal(data, &old); err != nil {
		return nil, fmt.Errorf("%s holds no runs of this command: %w", path, err)
	}
	was, _ := json.Marshal(old.Fleet)
	is, _ := json.Marshal(s.Fleet)
	if old.Commit != s.Commit || old.SLO != s.SLO || old.Scale != s.Scale || old.Trace != s.Trace || string(was) != string(is) {
		return nil, nil
	}
	return old.Runs, nil
}

// scene is what the flags ask for.
func (o *simulateOptions) scene() (sim.Scene, error) {
	var s sim.Scene
	var err error
	switch {
	case o.workload == "" && o.trace == "":
		return s, errors.New("give --workload or --trace; --help lists the workloads")
	case o.workload == "" || o.trace != "" || o.workload == "W8" || o.workload == "W11":
		s, err = o.replay()
	default:
		s, err = sim.Find(sim.Catalogue(), o.workload)
	}
	if err != nil {
		return s, err
	}
	if o.profile != "" {
		if s.Fleet.Profile, err = enginesim.ProfileByName(o.profile); err != nil {
			return s, err
		}
	}
	if o.pods+o.prefill+o.decode != 0 {
		s.Fleet.Pods, s.Fleet.Prefill, s.Fleet.Decode = o.pods, o.prefill, o.decode
	}
	if o.scale != 0 {
		s.Scale = o.scale
	}
	if o.kv != 1 {
		s.Fleet.KV = max(s.Fleet.KV, 1) * o.kv
	}
	s.Fleet.Lag, s.Fleet.Loss, s.Fleet.BlockSize = o.lag, o.loss, o.blockSize
	return s, nil
}

// replay is a scene of a trace file, or of the public trace of W8 or W11.
func (o *simulateOptions) replay() (sim.Scene, error) {
	name, pods := o.workload, 16
	if name == "" {
		name = "trace"
	}
	azure := o.format == "azure"
	path := o.trace
	switch {
	case o.format != "mooncake" && o.format != "azure":
		return sim.Scene{}, fmt.Errorf("--format %q is neither mooncake nor azure", o.format)
	case path == "" && name == "W11":
		azure, pods = true, 8
		path, _ = workload.FindAzure(".")
	case path == "":
		path, _ = workload.Find(".")
	}
	var t workload.Trace
	var err error
	switch {
	case path == "":
		fmt.Fprintln(os.Stderr, "The public trace is not at hand: a generated workload stands in for it.")
		t = workload.Generate(time.Hour, 1)
	case azure:
		t, err = workload.OpenAzure(path)
	default:
		t, err = workload.Open(path)
	}
	if err != nil {
		return sim.Scene{}, err
	}
	return sim.Replay(name, t, pods, o.speedup, o.jitter), nil
}

// simulationTable prints what people look at first.
func simulationTable(all []sim.Summary, policies []string) error {
	columns := []struct{ metric, title, format string }{
		{"output_tok_s", "OUT TOK/S", "%.0f"}, {"goodput", "GOODPUT", "%.4f"}, {"ttft_mean_s", "TTFT MEAN", "%.3f s"},
		{"ttft_p90_s", "P90", "%.3f s"}, {"ttft_p99_s", "P99", "%.2f s"}, {"tpot_mean_s", "TPOT", "%.4f s"},
		{"hit_ratio", "HIT", "%.3f"}, {"busy_max_over_mean", "BUSY MAX/MEAN", "%.2f"},
	}
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprint(w, "POLICY")
	for _, c := range columns {
		fmt.Fprint(w, "\t", c.title)
	}
	fmt.Fprintln(w, "\tGOODPUT AGAINST WARM (95 %)")
	for _, policy := range policies {
		fmt.Fprint(w, policy)
		var paired *sim.Paired
		for _, c := range columns {
			for _, s := range all {
				if s.Policy == policy && s.Metric == c.metric {
					fmt.Fprintf(w, "\t"+c.format, s.Mean)
					if c.metric == "goodput" {
						paired = s.Paired
					}
				}
			}
		}
		if paired != nil {
			fmt.Fprintf(w, "\t%+.4f [%+.4f, %+.4f]", paired.Diff, paired.CI95[0], paired.CI95[1])
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// cellProgress shows how far several runs at once are: a bar on a terminal, a line a run elsewhere.
func cellProgress(cells int) (show func(cell string, done, all int), finish func()) {
	var mu sync.Mutex
	shares := map[string]float64{}
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func(cell string, done, all int) {
			mu.Lock()
			defer mu.Unlock()
			if share := float64(done) / float64(max(1, all)); shares[cell] < .5 && share >= .5 {
				shares[cell] = share
				fmt.Fprintf(os.Stderr, "%s: half done\n", cell)
			}
		}, func() {}
	}
	bar := progressbar.NewOptions(1000*cells, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(40), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(200*time.Millisecond))
	return func(cell string, done, all int) {
		mu.Lock()
		defer mu.Unlock()
		shares[cell] = float64(done) / float64(max(1, all))
		sum := 0.
		for _, s := range shares {
			sum += s
		}
		bar.Describe(cell)
		_ = bar.Set(int(1000 * sum))
	}, func() { _ = bar.Finish() }
}
