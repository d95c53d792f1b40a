package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/gates"
	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// gatesRounds makes the random experiments so many times longer than the tests do.
const gatesRounds = 8

const gatesHelp = `Holds the simulator to what is known: invariants and closed forms (2.1), times measured on real GPUs (2.2), published
tables of llm-d's routing policies (2.3). Prints every figure with what was expected and how far it may be off, and ends
with an error if one fails. Measurements and traces are looked for in the folders traces and shared/traces here and above;
what is not at hand is listed as not run.

  loadgen gates
  loadgen gates --only 2.1,2.3/37`

// gatesResult is bench/sim-gates.json.
type gatesResult struct {
	report.Header
	*gates.Result
}

func gatesCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen gates", flag.ContinueOnError)
	only := fs.String("only", "", "gates to run, by the beginning of their ids, separated by commas; all if empty")
	path := fs.String("json", "", "file to write the figures to")
	return &ffcli.Command{
		Name: "gates", ShortUsage: "loadgen gates [flags]", FlagSet: fs,
		ShortHelp: "Hold the simulator to theory, silicon and published tables", LongHelp: gatesHelp,
		Exec: func(ctx context.Context, _ []string) error { return runGates(ctx, *only, *path) },
	}
}

func runGates(ctx context.Context, only, path string) error {
	all, err := allGates(only)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	seconds := 0.
	for i := range all {
		if all[i].Missing == "" {
			seconds += all[i].Weight
		}
	}
	seconds = max(1, seconds/float64(runtime.GOMAXPROCS(0)))
	took := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(os.Stderr, "%d gates, about %s on %d quiet cores\n", len(all), took, runtime.GOMAXPROCS(0))
	out := gatesResult{Header: report.NewHeader(1, time.Now())}
	done, finish := gateProgress(all)
	out.Result, err = gates.Run(ctx, all, done)
	finish()
	if err != nil {
		return err
	}
	if err := out.Print(os.Stdout); err != nil {
		return err
	}
	if err := daemon.WriteJSON(path, out); err != nil {
		return err
	}
	if n := out.Failed(); n > 0 {
		return fmt.Errorf("%d of %d figures fail", n, len(out.Gates))
	}
	return nil
}

// allGates are the gates whose ids begin as told.
func allGates(only string) ([]gates.Gate, error) {
	trace, _ := workload.Find(".")
	all := gates.Invariants(gatesRounds, trace)
	sample, _ := workload.FindCalibration(".", gates.SiliconFile)
	silicon, err := gates.Silicon(sample)
	if err != nil {
		return nil, err
	}
	all = append(all, silicon...)
	all = append(all, gates.Published(func(name string) (string, bool) { return workload.FindCalibration(".", name) })...)
	if all = gates.Only(all, only); len(all) == 0 {
		return nil, fmt.Errorf("--only %s: no such gate", only)
	}
	return all, nil
}

// gateProgress shows on standard error how much of the work is done: a bar on a terminal, a line at each quarter
// elsewhere.
func gateProgress(all []gates.Gate) (done func(*gates.Gate), finish func()) {
	const parts = 1000
	var mu sync.Mutex
	sum, so := 0., 0.
	for i := range all {
		if all[i].Missing == "" {
			sum += all[i].Weight
		}
	}
	share := func(g *gates.Gate) int {
		so += g.Weight
		return int(parts * so / sum)
	}
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		quarters := 0
		return func(g *gates.Gate) {
			mu.Lock()
			defer mu.Unlock()
			if now := 4 * share(g) / parts; now > quarters {
				quarters = now
				fmt.Fprintf(os.Stderr, "%d %% done\n", 25*quarters)
			}
		}, func() {}
	}
	bar := progressbar.NewOptions(parts, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(40), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(200*time.Millisecond))
	return func(g *gates.Gate) {
		mu.Lock()
		defer mu.Unlock()
		bar.Describe(g.ID)
		_ = bar.Set(share(g))
	}, func() { _ = bar.Finish() }
}
