package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/sim"
)

const simulateHelp = `Runs routing policies on the same arrivals in virtual time: simulated vLLM engines, the router's own decision code,
the real index. An hour of traffic takes seconds.

  loadgen simulate --workload W1 --policies warm,random,precise-2026 --seeds 3 --json bench/sim.json
  loadgen simulate --workload W1,W8 --jitter 3s --policies all --seeds 10 --json bench/sim.json
  loadgen simulate --trace mine.jsonl.gz --pods 12 --policies all

Workloads (--workload W1,W8 or all; each has its own fleet, which the flags change):
  W1   150 groups of 6,000 shared tokens, 3 to 60 requests a second: a tight cache
  W2   83 groups of 8,000 shared tokens, Llama-3.1-70B on 4 pods
  W3   150 groups of 2,000 shared tokens
  W5   250 groups of 16,000 shared tokens: more than the caches hold
  W6   random prompts on 15 prefill and 10 decode engines; W6-1024: shorter ones, one a second, on one of each
  W7   agents with long system prompts and tool calls
  W8   an hour of real conversations (Mooncake), 16 pods; --jitter 3s takes its arrivals off their grid of 3 s
  W10  a synthetic stand-in for a tool and agent trace
  W11  real conversations without shared prefixes (Azure), ten times as fast as recorded
--routers 2 puts several routers before the engines, which tell one another what they have under way; --peers -1ms lets
none hear.
Where a public trace is not at hand a generated one stands in, and the table says so.

Policies, and what each sees beside the requests that the router itself has under way:
  warm             all that a router knows: engines' events through the index, answers, rates learned from them
  random, round-robin        nothing
  least-requests, power-of-two   requests under way
  least-tokens     tokens of requests under way
  session          the session where it has several turns, else the prompt up to token 1,024: hashed to an engine
  bounded-hash     the same, and requests under way: none gets more than 1.25 times the mean
  approx-2025      its own placements of 31,250 blocks an engine; scraped queue and KV usage (llm-d 2025)
  approx           its own placements of as many blocks as fit; scraped queue and KV usage (llm-d since)
  precise-2025     events, least and most scaled to 0 and 1; scraped queue and KV usage, 3:2:2 (llm-d 2025)
  precise-2026     events, matched of total; scraped queue and KV usage, 3:2:2 (llm-d since May 2026)
  dynamo           events and its own count of blocks: those to compute, those in use (NVIDIA Dynamo)
  greedy           the least predicted time to the first token, from events and the ledger
  oracle           what warm sees without lag, and how long each answer will be: no router can
ablations is warm, and warm less one part of its rule each: warm-no-queue and so on, on engines of role both alone.

Metrics (warm-up left out; docs/simulation.md has the formulas):
  output_tok_s                mean over stages of tokens a second
  goodput                     share of offered requests that keep both bounds of --slo
  goodput_length_aware        the same, with 3 times a lone prompt's time to the first token where that is more
  ttft_*, tpot_mean_s         time to the first token, mean time between tokens
  itl_max_p99_s               99th percentile of each answer's longest gap
  hit_ratio, cache_efficiency prompt tokens found in the cache; the same against one pooled cache
  preemptions, shed, busy_max_over_mean`

// simulateOptions are the flags of loadgen simulate.
type simulateOptions struct {
	sceneOptions
	policies string
	seeds    int
	out      outputOptions
}

func simulateCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen simulate", flag.ContinueOnError)
	var o simulateOptions
	o.register(fs)
	fs.StringVar(&o.policies, "policies", "warm,round-robin,least-tokens,precise-2026",
		"policies to compare, with commas, or all, or ablations")
	fs.IntVar(&o.seeds, "seeds", 1, "runs of each policy, with seeds 1 to N")
	o.out.register(fs, "")
	return &ffcli.Command{
		Name: "simulate", ShortUsage: "loadgen simulate --workload W1 [flags]", FlagSet: fs,
		ShortHelp: "Compare routing policies in virtual time", LongHelp: simulateHelp,
		Exec: flagsOnly("workloads are given as --workload W1", o.run),
	}
}

func (o *simulateOptions) run(ctx context.Context) error {
	slo, err := o.objective()
	if err != nil {
		return err
	}
	scenes, err := o.scenes()
	if err != nil {
		return err
	}
	policies, err := sim.ParsePolicies(o.policies)
	if err != nil {
		return fmt.Errorf("--policies: %w", err)
	}
	if o.seeds < 1 {
		return fmt.Errorf("--seeds %d: at least one run of each policy is needed", o.seeds)
	}
	file, err := openResults(ctx, o.out.json, slo, scenes)
	if err != nil {
		return err
	}
	records, err := file.run(ctx, sim.Cross(scenes, policies, o.seeds, slo))
	if err != nil {
		return err
	}
	for _, scene := range scenes {
		of := sim.Summarize(recordsOf(records, &scene, slo))
		fmt.Printf("\n%s: %s; %d pods, scale %g, %d seeds\n\n", scene.Name, scene.What, scene.Fleet.Engines(), scene.Scale, o.seeds)
		if err := simulationTable(of, policies); err != nil {
			return err
		}
	}
	return writePage(pagePath(o.out.report, o.out.json), func() report.Page { return simulationPage(scenes, slo, records) })
}

// recordsOf are the runs of one scene.
func recordsOf(records []sim.Record, scene *sim.Scene, slo sim.SLO) (own []sim.Record) {
	key := scene.Setup(slo).Key()
	for _, r := range records {
		if r.Workload == scene.Name && r.Setup == key {
			own = append(own, r)
		}
	}
	return own
}

func simulationPage(scenes []sim.Scene, slo sim.SLO, records []sim.Record) report.Page {
	p := report.Simulation{Header: report.NewHeader(1, time.Now()), SLO: slo}
	for _, scene := range scenes {
		setup := scene.Setup(slo)
		p.Parts = append(p.Parts, report.Part{Name: scene.Name, What: scene.What, Setup: setup, Records: recordsOf(records, &scene, slo)})
	}
	return &p
}

// pagePath is where the page goes; empty is nowhere.
func pagePath(page, json string) string {
	if page != "" || json == "" {
		return page
	}
	return strings.TrimSuffix(json, ".json") + ".html"
}

func writePage(path string, page func() report.Page) (err error) {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := page().HTML(f); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "Plots: %s\n", path)
	return nil
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
	fmt.Fprintln(w, "\tTOK/S LESS WARM'S (95 %)\tGOODPUT LESS WARM'S (95 %)")
	for _, policy := range policies {
		fmt.Fprint(w, policy)
		for _, c := range columns {
			fmt.Fprintf(w, "\t"+c.format, find(all, policy, c.metric).Mean)
		}
		for metric, format := range [2]string{"\t%+.0f [%+.0f, %+.0f]", "\t%+.4f [%+.4f, %+.4f]"} {
			if p := find(all, policy, [2]string{"output_tok_s", "goodput"}[metric]).Paired; p != nil {
				fmt.Fprintf(w, format, p.Diff, p.CI95[0], p.CI95[1])
			} else {
				fmt.Fprint(w, "\t")
			}
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// find returns one figure; the zero value where there is none.
func find(all []sim.Summary, policy, metric string) sim.Summary {
	for _, s := range all {
		if s.Policy == policy && s.Metric == metric {
			return s
		}
	}
	return sim.Summary{}
}
