package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/cmd/warmpath/internal/capture"
)

func eventsCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:        "events",
		ShortUsage:  "warmpath events <record|verify> [flags]",
		ShortHelp:   "Record an engine's KV events, or verify recordings",
		Subcommands: []*ffcli.Command{recordCommand(), verifyCommand()},
		Exec:        daemon.NoVerb,
	}
}

func recordCommand() *ffcli.Command {
	fs := flag.NewFlagSet("warmpath events record", flag.ContinueOnError)
	out := fs.String("out", "-", "file to write, - for standard output")
	frames := fs.Int("frames", 0, "stop after so many frames; 0 means no limit")
	duration := fs.Duration("for", 0, "stop after this time; 0 means no limit")
	return &ffcli.Command{
		Name:       "record",
		ShortUsage: "warmpath events record [flags] tcp://HOST:PORT",
		ShortHelp:  "Write an engine's event frames as JSON Lines",
		LongHelp: "Subscribes to an engine's KV events and writes one JSON line a frame, in the form that `events verify` reads.\n" +
			"Mind that frames carry the token ids of prompts. Ctrl-C ends the recording.",
		FlagSet: fs,
		Exec: func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return errors.New("give one endpoint, such as tcp://127.0.0.1:5557")
			}
			w := os.Stdout
			if *out != "-" {
				file, err := os.OpenFile(*out, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				defer file.Close()
				w = file
			}
			if *duration > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, *duration)
				defer cancel()
			}
			start := time.Now()
			n, err := capture.Record(ctx, w, capture.RecordOptions{Endpoint: args[0], Frames: *frames})
			fmt.Fprintf(os.Stderr, "recorded %d frames in %s\n", n, time.Since(start).Round(time.Millisecond))
			if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
}

func verifyCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:       "verify",
		ShortUsage: "warmpath events verify FILE...",
		ShortHelp:  "Check recorded event frames, block hashes, replays and cache contents",
		LongHelp: `Checks each line of JSON Lines files against what Warmpath makes of it: decoded events, block hashes recomputed
from tokens, replay replies, the cache contents after every step (copies counted from the events), and the longest
cached prefix that the index would report for a request. Prints one line a mismatch; exits 1 if there is any.

Not judged:
  ` + strings.Join(capture.NotJudged(), "\n  "),
		Exec: func(_ context.Context, args []string) error {
			if len(args) == 0 {
				return errors.New("give at least one file")
			}
			result, err := capture.Verify(os.Stdout, args)
			if err != nil {
				return err
			}
			if result.Mismatches > 0 {
				os.Exit(1)
			}
			return nil
		},
	}
}
