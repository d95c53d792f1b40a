package main

import (
	"context"
	"encoding/json"
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
	"github.com/warmpath/warmpath/loadgen/plane"
	"github.com/warmpath/warmpath/loadgen/report"
)

// planeRole is the argument with which this command starts itself for one role of a measurement.
const planeRole = "role"

// planeFile is bench/plane.json.
type planeFile struct {
	report.Header
	plane.Figures
}

func planeCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen plane", flag.ContinueOnError)
	var o plane.Options
	names := fs.String("parts", strings.Join(plane.Parts(), ","), "parts to measure")
	out := fs.String("out", filepath.Join("bench", "plane.json"), "file for the figures; parts that it has of this very commit are kept")
	again := fs.Bool("again", false, "measure also what the file has already")
	fs.Float64Var(&o.Seconds, "seconds", 30, "how long the live part is measured; the others are scaled with it")
	fs.IntVar(&o.Engines, "engines", 64, "live engines, and those that change their owner")
	fs.IntVar(&o.Blocks, "blocks", 8192, "KV blocks of each live engine")
	fs.Float64Var(&o.Rate, "rate", 100_000, "block operations a second of all live engines together")
	fs.IntVar(&o.Streams, "streams", 1000, "engines whose recorded event streams are replayed")
	fs.IntVar(&o.Resident, "resident", 10_000_000, "blocks in the index shards that restart and that follow a large fleet (about 60 B of memory each, in all processes)")
	fs.IntVar(&o.FullBlocks, "full-blocks", 60_000, "KV blocks of each engine whose ingest is killed")
	return &ffcli.Command{
		Name:       "plane",
		ShortUsage: "loadgen plane [flags]",
		ShortHelp:  "Measure the event plane: engines, ingest, NATS and index, each in a process of its own",
		LongHelp: `Measures how late and how costly the way from an engine's events to the index is, and how fast it comes back.
The figures are printed and written as JSON. What is read in two cores' worth of other work means nothing.`,
		FlagSet: fs,
		Exec: func(ctx context.Context, args []string) error {
			if len(args) == 2 && args[0] == planeRole {
				return plane.Serve(ctx, args[1], os.Stdin, os.Stdout)
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Self, o.Parts = []string{self, "plane", planeRole}, strings.Split(*names, ",")
			return runPlane(ctx, o, *out, *again)
		},
	}
}

// runPlane measures what the file lacks and writes it after each part.
func runPlane(ctx context.Context, o plane.Options, path string, again bool) error {
	file := planeFile{Header: report.NewHeader(1, time.Now())}
	if !again {
		var old planeFile
		if resumes(path, &old, &old.Header, file.Header) {
			file = old
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	left, err := plane.Expected(o, &file.Figures)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "about %s on two quiet cores\n", left.Round(5*time.Second))
	show, finish := ticking(left)
	o.Before = show
	o.After = func(*plane.Figures) error { return daemon.WriteJSON(path, file) }
	err = plane.Run(ctx, o, &file.Figures)
	finish()
	if tableErr := file.Table(os.Stdout); tableErr != nil {
		return errors.Join(err, tableErr)
	}
	fmt.Printf("\nfigures  %s\n", path)
	return err
}

// resumes reads the figures at path into old, whose header is given, and says whether they were measured by this very
// tree, on this machine.
func resumes(path string, old any, header *report.Header, fresh report.Header) bool {
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, old) != nil || header.Commit != fresh.Commit || header.Commit == "" ||
		strings.HasSuffix(header.Commit, "+") || header.Schema != fresh.Schema || header.Machine != fresh.Machine {
		return false
	}
	fmt.Fprintf(os.Stderr, "%s has figures of this commit, begun %s: its parts are kept (--again measures them anew)\n", path, header.Started)
	return true
}

// ticking shows on standard error which part is under way and how much of the time is over: a bar on a terminal, a line
// for each part elsewhere.
func ticking(all time.Duration) (show func(part string), finish func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func(part string) { fmt.Fprintln(os.Stderr, "measuring", part) }, func() {}
	}
	seconds := int(all.Seconds())
	bar := progressbar.NewOptions(seconds, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetWidth(40),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false))
	began, tick, done := time.Now(), time.NewTicker(time.Second), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = bar.Set(min(int(time.Since(began).Seconds()), seconds-1))
			}
		}
	}()
	return func(part string) { bar.Describe(fmt.Sprintf("%-10s", part)) }, func() {
		tick.Stop()
		close(done)
		_ = bar.Finish()
	}
}
