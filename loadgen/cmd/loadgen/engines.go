package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
	fleetapi "github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// engineOptions are the flags that say what engines to simulate.
type engineOptions struct {
	count     int
	prefill   int // of other roles; with either, none is for both
	decode    int
	model     string
	profile   string
	kvTokens  int
	blockSize int
	scale     float64
	seed      uint64
}

func (o *engineOptions) register(fs *flag.FlagSet) {
	fs.IntVar(&o.count, "n", 8, "number of engines that do all; not with --prefill and --decode")
	fs.IntVar(&o.prefill, "prefill", 0, "number of engines that compute prompts for others; with --decode")
	fs.IntVar(&o.decode, "decode", 0, "number of engines that decode; with --prefill")
	fs.StringVar(&o.model, "model", "Qwen/Qwen3-32B", "model name that the engines serve")
	fs.StringVar(&o.profile, "profile", "qwen3-32b-tp2-h100", "step times: instant, qwen3-32b-tp2-h100, llama-3.1-70b-tp4, llama-3.1-8b-tp1, ...")
	fs.IntVar(&o.kvTokens, "kv-tokens", 0, "KV cache of each engine in tokens; 0 takes the profile's")
	fs.IntVar(&o.blockSize, "block-size", 16, "tokens per KV block")
	fs.Float64Var(&o.scale, "time-scale", 1, "how many times faster than real time the engines run")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of everything that is random")
}

// fleet is a set of running simulated engines.
type fleet []player

// player is an engine and what it is used for.
type player struct {
	*enginesim.Engine
	role fleetapi.Role
}

// start runs the engines on free loopback ports.
func (o *engineOptions) start(ctx context.Context) (fleet, error) {
	if err := o.apart(); err != nil {
		return nil, err
	}
	profile, err := enginesim.ProfileByName(o.profile)
	if err != nil {
		return nil, err
	}
	tokens := o.kvTokens
	if tokens == 0 {
		tokens = profile.KVTokens
	}
	if tokens == 0 {
		tokens = 307_328
	}
	var engines fleet
	for i := range o.count {
		engine, err := enginesim.Start(ctx, enginesim.Options{
			Model: o.model, Name: engineName(i),
			BlockSize: o.blockSize, Blocks: tokens / o.blockSize,
			Profile: profile, TimeScale: o.scale, Seed: o.seed + uint64(i),
			HTTP: "127.0.0.1:0", Events: "tcp://127.0.0.1:0", Replay: "tcp://127.0.0.1:0",
		})
		if err != nil {
			engines.close()
			return nil, fmt.Errorf("start engine %d: %w", i, err)
		}
		engines = append(engines, player{engine, o.role(i)})
	}
	return engines, nil
}

func (f fleet) close() {
	for _, engine := range f {
		engine.Close()
	}
}

// apart checks how many engines there are of each role, and makes count the number of all.
func (o *engineOptions) apart() error {
	switch {
	case o.prefill < 0 || o.decode < 0 || (o.prefill > 0) != (o.decode > 0):
		return fmt.Errorf("--prefill %d --decode %d: prompts that are computed apart need engines of both roles", o.prefill, o.decode)
	case o.prefill > 0:
		o.count = o.prefill + o.decode
	case o.count < 1:
		return fmt.Errorf("-n %d: at least one engine is needed", o.count)
	}
	return nil
}

// role is that of engine i: prefill engines come first.
func (o *engineOptions) role(i int) fleetapi.Role {
	switch {
	case o.prefill == 0:
		return fleetapi.Both
	case i < o.prefill:
		return fleetapi.Prefill
	}
	return fleetapi.Decode
}

// engineName is what an engine is called in ready files, logs and reports.
func engineName(i int) string { return fmt.Sprintf("engine-%d", i) }

func (o *engineOptions) names() []string {
	var names []string
	for i := range o.count {
		names = append(names, engineName(i))
	}
	return names
}

// engineRecord and its list are the shape of --ready-file, which `warmpath up --engines-file` reads.
type engineRecord struct {
	Name   string `json:"name"`
	Model  string `json:"model"`
	URL    string `json:"url"`
	Events string `json:"events"`
	Replay string `json:"replay"`
	Role   string `json:"role"`
	Rank   int    `json:"dp_rank"`
}

func (f fleet) records(model string) []engineRecord {
	var records []engineRecord
	for i, e := range f {
		records = append(records, engineRecord{
			Name: engineName(i), Model: model,
			URL: e.URL(), Events: e.Events(), Replay: e.Replay(), Role: string(e.role),
		})
	}
	return records
}

func enginesCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen engines", flag.ContinueOnError)
	var o engineOptions
	o.register(fs)
	readyFile := fs.String("ready-file", "", "file to write the engines' addresses to once they answer")
	return &ffcli.Command{
		Name:       "engines",
		ShortUsage: "loadgen engines [flags]",
		ShortHelp:  "Run simulated vLLM engines until Ctrl-C",
		LongHelp:   "Runs simulated vLLM engines (OpenAI HTTP, KV events and replay over ZeroMQ, /metrics) and prints the flags for `warmpath up`.",
		FlagSet:    fs,
		Exec: func(ctx context.Context, _ []string) error {
			engines, err := o.start(ctx)
			if err != nil {
				return err
			}
			defer engines.close()
			records := engines.records(o.model)
			fmt.Println("warmpath up \\")
			for i, r := range records {
				end := " \\"
				if i == len(records)-1 {
					end = ""
				}
				fmt.Printf("  --engine %s,events=%s,replay=%s,role=%s%s\n", r.URL, r.Events, r.Replay, r.Role, end)
			}
			if err := daemon.WriteJSON(*readyFile, map[string]any{"engines": records}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		},
	}
}
