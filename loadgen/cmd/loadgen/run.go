package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// replay drives one endpoint with the trace and shows how far it is.
func replay(ctx context.Context, label string, o run.Options, trace workload.Trace) (*run.Result, error) {
	show, finish := progress(label, len(trace.Requests))
	defer finish()
	o.Progress = show
	return run.Drive(ctx, o, trace)
}

func runCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen run", flag.ContinueOnError)
	var o run.Options
	var t traceOptions
	t.register(fs, 300)
	fs.StringVar(&o.URL, "url", "http://127.0.0.1:8080", "OpenAI endpoint, without /v1")
	fs.StringVar(&o.Model, "model", "Qwen/Qwen3-32B", "model to ask for")
	fs.Float64Var(&o.TimeScale, "time-scale", 1, "how many times faster than the trace to send; the engines must be as much faster")
	fs.IntVar(&o.Concurrency, "concurrency", 1024, "most requests in flight; those that it delays are counted as late")
	keyFile := fs.String("key-file", "", "file with the API key")
	label := fs.String("label", "run", "name of this run in the table")
	jsonFile := fs.String("json", "", "file to write the figures to")
	return &ffcli.Command{
		Name:       "run",
		ShortUsage: "loadgen run --url URL [flags]",
		ShortHelp:  "Replay a trace against any OpenAI endpoint, as an open loop",
		LongHelp:   "Sends each request of a trace at its own time, whatever became of those before it, and prints what was measured.\nTimes are in trace time: wall time multiplied by --time-scale.",
		FlagSet:    fs,
		Exec: func(ctx context.Context, _ []string) error {
			trace, err := t.load()
			if err != nil {
				return err
			}
			if o.Key, err = readKey(*keyFile); err != nil {
				return err
			}
			result, err := replay(ctx, *label, o, trace)
			if result == nil || errors.Is(err, run.ErrOptions) {
				return err
			}
			c := report.Comparison{
				Trace: trace.Name, Seconds: t.seconds, TimeScale: o.TimeScale, Model: o.Model,
				Arms: []report.Arm{{Policy: *label, Result: result}},
			}
			if tableErr := c.Table(os.Stdout); tableErr != nil {
				return tableErr
			}
			err = errors.Join(err, daemon.WriteJSON(*jsonFile, result.Summary()))
			if failed := result.Summary().Errors; failed > 0 {
				err = errors.Join(err, fmt.Errorf("%d of %d requests failed", failed, len(result.Outcomes)))
			}
			return err
		},
	}
}

func readKey(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the API key: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
