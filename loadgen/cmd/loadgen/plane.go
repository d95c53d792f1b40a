package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/plane"
	"github.com/warmpath/warmpath/loadgen/report"
)

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
			if len(args) == 2 && args[0] == roleArgument {
				return plane.Serve(ctx, args[1], os.Stdin, os.Stdout)
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Self, o.Parts = []string{self, "plane", roleArgument}, strings.Split(*names, ",")
			return runPlane(ctx, o, *out, *again)
		},
	}
}

// runPlane measures what the file lacks and writes it after each part.
func runPlane(ctx context.Context, o plane.Options, path string, again bool) error {
	file := planeFile{Header: report.NewHeader(1, time.Now())}
	if err := resume(path, again, &file, func(f *planeFile) *report.Header { return &f.Header }); err != nil {
		return err
	}
	left, err := plane.Expected(o, &file.Figures)
	if err != nil {
		return err
	}
	o.After = func(*plane.Figures) error { return daemon.WriteJSON(path, file) }
	return showParts(path, left, file.Table, func(before func(string)) error {
		o.Before = before
		return plane.Run(ctx, o, &file.Figures)
	})
}
