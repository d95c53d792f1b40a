// Command loadgen drives Warmpath: simulated vLLM engines, real traces, comparisons of routing policies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
)

func main() { os.Exit(execute(os.Args[1:])) }

// unknownVerb runs where no subcommand was named.
func unknownVerb(_ context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown verb %q; --help lists them", args[0])
	}
	return errNoVerb
}

// errNoVerb prints the usage, as --help does, but is a failure.
var errNoVerb = fmt.Errorf("no verb given: %w", flag.ErrHelp)

func execute(args []string) (code int) {
	ctx, stop := daemon.SignalContext()
	defer stop()
	err := root().ParseAndRun(ctx, args)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return 0
	case errors.Is(err, errNoVerb):
		return 2
	case errors.Is(err, flag.ErrHelp):
		return 0
	}
	fmt.Fprintf(os.Stderr, "loadgen: %v\n", err)
	return 1
}

func root() *ffcli.Command {
	return &ffcli.Command{
		Name:       "loadgen",
		ShortUsage: "loadgen <verb> [flags]",
		LongHelp: `Drives Warmpath with simulated engines and real traces. No GPU is needed.

  loadgen demo             replay a trace through everything, round-robin against warm, and print a table
  loadgen engines -n 8     run simulated vLLM engines and print the flags for "warmpath up"
  loadgen run --url URL    replay a trace against any OpenAI endpoint`,
		Subcommands: []*ffcli.Command{demoCommand(), enginesCommand(), runCommand()},
		Exec:        unknownVerb,
	}
}
