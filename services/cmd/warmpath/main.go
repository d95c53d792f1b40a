// Command warmpath is the user's command: it runs Warmpath on one machine and looks into the engines' KV events.
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
	fmt.Fprintf(os.Stderr, "warmpath: %v\n", err)
	return 1
}

func root() *ffcli.Command {
	return &ffcli.Command{
		Name:       "warmpath",
		ShortUsage: "warmpath <verb> [flags]",
		LongHelp: `Warmpath routes each LLM request to the vLLM engine whose KV cache is already warm for it.

Start with one command, one --engine for each engine that you run:

  warmpath up --engine http://127.0.0.1:8000 --engine http://127.0.0.1:8001,events=tcp://127.0.0.1:5567,replay=tcp://127.0.0.1:5568

vLLM must publish its KV events for that:

  vllm serve MODEL --port 8000 --enable-prefix-caching --kv-events-config \
    '{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5558"}'`,
		Subcommands: []*ffcli.Command{upCommand(), eventsCommand()},
		Exec:        unknownVerb,
	}
}
