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
	"github.com/warmpath/warmpath/loadgen/bench/hop"
	"github.com/warmpath/warmpath/loadgen/report"
)

// routerFile is bench/router.json.
type routerFile struct {
	report.Header
	hop.Figures
}

func benchRouterCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen bench-router", flag.ContinueOnError)
	var o hop.Options
	names := fs.String("parts", strings.Join(hop.Parts(), ","), "parts to measure; AxB is bodies of A bytes on B connections")
	out := fs.String("out", filepath.Join("bench", "router.json"), "file for the figures; parts that it has of this very commit are kept")
	again := fs.Bool("again", false, "measure also what the file has already")
	fs.IntVar(&o.Requests, "requests", 2000, "requests of each row, as many straight to an engine as through the router")
	fs.Float64Var(&o.Seconds, "seconds", 8, "how long each other part is measured, about")
	fs.IntVar(&o.Streams, "streams", 1000, "streams at once")
	fs.StringVar(&o.Profile, "profile", "", "folder for processor profiles of the router, one a part")
	return &ffcli.Command{
		Name:       "bench-router",
		ShortUsage: "loadgen bench-router [flags]",
		ShortHelp:  "Measure what the router adds to a request: time to the first byte, processor time, allocations",
		LongHelp: `Sends requests straight to engines that answer at once, and through the router, which asks a scorer that knows the
answer. Client, engines, scorer, NATS and router are processes of their own on the same cores. The figures are printed
and written as JSON. What is read in two cores' worth of other work means nothing.`,
		FlagSet: fs,
		Exec: func(ctx context.Context, args []string) error {
			if len(args) == 2 && args[0] == roleArgument {
				return hop.Serve(ctx, args[1], os.Stdin, os.Stdout)
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Self, o.Parts = []string{self, "bench-router", roleArgument}, strings.Split(*names, ",")
			return runHop(ctx, o, *out, *again)
		},
	}
}

// runHop measures what the file lacks and writes it after each part.
func runHop(ctx context.Context, o hop.Options, path string, again bool) error {
	file := routerFile{Header: report.NewHeader(1, time.Now())}
	if err := resume(path, again, &file, func(f *routerFile) *report.Header { return &f.Header }); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(o.Profile, "."), 0o755); err != nil {
		return err
	}
	left, err := hop.Expected(o, &file.Figures)
	if err != nil {
		return err
	}
	o.After = func(*hop.Figures) error { return daemon.WriteJSON(path, file) }
	return showParts(path, left, file.Table, func(before func(string)) error {
		o.Before = before
		return hop.Run(ctx, o, &file.Figures)
	})
}
