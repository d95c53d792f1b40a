// Command warmpath is the user's command: it runs Warmpath on one machine, shows the fleet, and explains decisions.
package main

import (
	"os"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
)

func main() { os.Exit(daemon.RunVerb(root(), os.Args[1:])) }

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
		Subcommands: []*ffcli.Command{upCommand(), topCommand(), explainCommand(), keysCommand(), eventsCommand()},
		Exec:        daemon.NoVerb,
	}
}
