package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/loadgen/sim"
)

func fairnessCommand() *ffcli.Command {
	crowd := sim.DefaultCrowd()
	o := sim.Options{Pods: 4}
	fs := flag.NewFlagSet("loadgen fairness", flag.ContinueOnError)
	fs.DurationVar(&crowd.Length, "for", crowd.Length, "virtual time in which requests arrive")
	fs.IntVar(&o.Pods, "pods", o.Pods, "engines")
	fs.Uint64Var(&o.Seed, "seed", 1, "of arrivals and noise")
	asJSON := fs.Bool("json", false, "print JSON")
	return &ffcli.Command{
		Name:       "fairness",
		ShortUsage: "loadgen fairness [flags]",
		ShortHelp:  "Serve tenants that ask for too much, as they come and in turn",
		LongHelp: `Five tenants share a fleet in virtual time: one greedy, three that ask for more than their share, one that asks for little.
Compares no queue in the router, one queue for all, and the router's turns. Takes about a minute.`,
		FlagSet: fs,
		Exec: func(context.Context, []string) error {
			var results []*sim.FairnessResult
			for _, order := range []sim.Order{"", sim.FIFO, sim.Turns} {
				r, err := sim.Fairness(o, crowd, order)
				if err != nil {
					return err
				}
				results = append(results, r)
			}
			if *asJSON {
				return json.NewEncoder(os.Stdout).Encode(results)
			}
			return printFairness(os.Stdout, results)
		},
	}
}

func printFairness(out io.Writer, results []*sim.FairnessResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "order\tJain index\ttok/s\ttokens of the greedy\tof each other\tlight: TTFT p50\tp99")
	for _, r := range results {
		order, light := string(r.Order), r.Shares[len(r.Shares)-1]
		if order == "" {
			order = "none"
		}
		others := 0
		for _, s := range r.Shares[1 : len(r.Shares)-1] {
			others += s.Tokens / (len(r.Shares) - 2)
		}
		fmt.Fprintf(w, "%s\t%.3f\t%.0f\t%d\t%d\t%.2f s\t%.2f s\n", order, r.Jain, r.TokS, r.Shares[0].Tokens, others, light.TTFTP50, light.TTFTP99)
	}
	return w.Flush()
}
