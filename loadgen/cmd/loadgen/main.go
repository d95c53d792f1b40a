// Command loadgen drives Warmpath: simulated vLLM engines, real traces, comparisons of routing policies.
package main

import (
	"os"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
)

func main() { os.Exit(daemon.RunVerb(root(), os.Args[1:])) }

func root() *ffcli.Command {
	return &ffcli.Command{
		Name:       "loadgen",
		ShortUsage: "loadgen <verb> [flags]",
		LongHelp: `Drives Warmpath with simulated engines and real traces. No GPU is needed.

  loadgen demo             replay a trace through everything, round-robin against warm, and print a table
  loadgen engines -n 8     run simulated vLLM engines and print the flags for "warmpath up"
  loadgen run --url URL    replay a trace against any OpenAI endpoint
  loadgen rivals           measure the index and stand-ins for others on the same work
  loadgen plane            measure the event plane: engines, ingest, NATS, index
  loadgen bench-router     measure what the router adds to a request
  loadgen simulate         compare routing policies in virtual time
  loadgen autoscale        compare autoscalers in virtual time
  loadgen fairness         serve tenants that ask for too much, as they come and in turn
  loadgen sweep            simulate them under worse and worse conditions
  loadgen realtime         compare real time with virtual time on one trace
  loadgen routers          compare several routers with one on a trace, over sockets
  loadgen gates            hold the simulator to theory, silicon and published tables`,
		Subcommands: []*ffcli.Command{
			demoCommand(), enginesCommand(), runCommand(), rivalsCommand(), planeCommand(), benchRouterCommand(),
			simulateCommand(), autoscaleCommand(), fairnessCommand(), sweepCommand(), realtimeCommand(), routersCommand(), gatesCommand(),
		},
		Exec: daemon.NoVerb,
	}
}
