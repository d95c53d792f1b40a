package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/bench"
	"github.com/warmpath/warmpath/loadgen/report"
)

// rivalsResult is bench/rivals.json.
type rivalsResult struct {
	report.Header

	Rows   int             `json:"rows"`
	Load   string          `json:"load_average"` // when it began; beside other work times are too long
	CPU    bool            `json:"cpu_time"`     // times are of the processor, not of the clock
	Rivals []bench.Figures `json:"rivals"`
	Reach  []bench.Reach   `json:"reach"`
}

func rivalsCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen rivals", flag.ContinueOnError)
	rows := fs.Int("rows", 1_000_000, "different blocks resident; 16 engines hold each of them")
	round := fs.Duration("round", 500*time.Millisecond, "how long each time is taken for")
	cpu := fs.Bool("cpu", false, "count CPU time instead of wall time, for a machine that has other work")
	only := fs.String("only", "", "part of the names of the rivals to run, separated by commas; all if empty")
	out := fs.String("out", "bench", "folder for rivals.json")
	return &ffcli.Command{
		Name:       "rivals",
		ShortUsage: "loadgen rivals [flags]",
		ShortHelp:  "Measure the index and stand-ins for others on the same work",
		LongHelp: `Gives the same blocks, events and queries to prefix.Index and to minimal stand-ins for the indexes of other projects, one
after another in this process, and prints what each took and how many of its answers were wrong. With 1 M rows it needs
about 10 GB of memory.`,
		FlagSet: fs,
		Exec: func(ctx context.Context, _ []string) error {
			if *rows < 1000 {
				return fmt.Errorf("--rows %d: must be at least 1000", *rows)
			}
			chosen := chooseRivals(*only)
			if len(chosen) == 0 {
				return fmt.Errorf("--only %s: no such rival", *only)
			}
			if err := os.MkdirAll(*out, 0o755); err != nil {
				return err
			}
			result := rivalsResult{Header: report.NewHeader(1, time.Now()), Rows: *rows, Load: loadAverage(), CPU: *cpu}
			show, finish := phases()
			var err error
			result.Rivals, err = bench.Measure(ctx, chosen, bench.Options{Rows: *rows, Round: *round, CPU: *cpu, Progress: show})
			finish()
			if err != nil {
				return err
			}
			result.Reach = bench.Reaches(result.Rivals, *rows)
			fmt.Printf("%s, %d cores, %.0f GB, %s, Linux %s, commit %s; %d rows; load average at the start %s; CPU time %t\n\n", result.Machine.CPU, result.Machine.Cores,
				result.Machine.MemGB, result.Machine.Go, result.Machine.Kernel, result.Commit, *rows, result.Load, *cpu)
			return errors.Join(bench.Table(os.Stdout, result.Rivals, *rows), daemon.WriteJSON(filepath.Join(*out, "rivals.json"), result))
		},
	}
}

// loadAverage is that of the last minute, empty where it is not told.
func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(data), " ")
	return load
}

func chooseRivals(only string) (chosen []bench.Rival) {
	for _, r := range bench.Rivals() {
		for _, part := range strings.Split(only, ",") {
			if strings.Contains(strings.ToLower(r.Name), strings.ToLower(part)) {
				chosen = append(chosen, r)
				break
			}
		}
	}
	return chosen
}

// phases shows on standard error what runs: a bar on a terminal, a line for each phase elsewhere. finish ends it.
func phases() (show func(done, all int, what string), finish func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func(done, all int, what string) { fmt.Fprintf(os.Stderr, "%d of %d: %s\n", done+1, all, what) }, func() {}
	}
	bar := progressbar.NewOptions(1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	return func(done, all int, what string) {
		bar.ChangeMax(all)
		bar.Describe(fmt.Sprintf("%-42s", what))
		_ = bar.Set(done)
	}, func() { _ = bar.Finish() }
}
