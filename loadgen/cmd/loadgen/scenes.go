package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// sceneOptions are the flags that say what is simulated.
type sceneOptions struct {
	workload        string
	trace, format   string
	profile         string
	pods            int
	prefill, decode int
	groups, prompts int
	speedup, scale  float64
	jitter          time.Duration
	slo             string
	lag             time.Duration
	loss            float64
	noReplay        bool
	kv              float64
	blockSize       int
	routers         int
	peers           time.Duration
}

// outputOptions say where a comparison of policies goes.
type outputOptions struct{ json, report string }

func (o *outputOptions) register(fs *flag.FlagSet, json string) {
	fs.StringVar(&o.json, "json", json, "file to write the figures to; runs that it has already are kept and not run again")
	fs.StringVar(&o.report, "report", "", "page of plots to write; empty is beside --json")
}

// flagsOnly runs a verb that takes no arguments; usage says what should have been a flag.
func flagsOnly(usage string, run func(context.Context) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("%q is no flag; %s", args[0], usage)
		}
		return run(ctx)
	}
}

func (o *sceneOptions) register(fs *flag.FlagSet) {
	fs.StringVar(&o.workload, "workload", "", "workloads with commas, or all; with --trace none is needed")
	fs.StringVar(&o.trace, "trace", "", "trace file to replay in place of the workload's, plain or .gz")
	fs.StringVar(&o.format, "format", "mooncake", "format of --trace: mooncake or azure")
	fs.IntVar(&o.pods, "pods", 0, "engines of role both; 0 is the workload's own number, or none beside --prefill-pods and --decode-pods")
	fs.IntVar(&o.prefill, "prefill-pods", 0, "engines that compute prompts for others")
	fs.IntVar(&o.decode, "decode-pods", 0, "engines that have prompts computed by others")
	fs.StringVar(&o.profile, "profile", "", "model and machine of the engines, such as qwen3-32b-tp2-h100; empty is the workload's own")
	fs.IntVar(&o.groups, "groups", 0, "groups of prompts in W1 to W5; 0 is the workload's own number")
	fs.IntVar(&o.prompts, "prompts", 0, "prompts in each group of W1 to W5; 0 is the workload's own number")
	fs.Float64Var(&o.speedup, "speedup", 0, "how many times faster than recorded a trace arrives; 0 is the workload's own: 10 for W11, else 1")
	fs.DurationVar(&o.jitter, "jitter", 0, "move each arrival of a trace later by up to so much, at random")
	fs.Float64Var(&o.scale, "scale", 0,
		"factor on the engines' step times; 0 is the workload's own (1: measured silicon; 1.2: fits llm-d's tables best)")
	fs.StringVar(&o.slo, "slo", "2s,50ms", "what a good answer keeps: time to the first token, and mean time between two tokens")
	fs.DurationVar(&o.lag, "lag", 0, "time until events are visible in the index; 0 is 20ms, below 0 none")
	fs.Float64Var(&o.loss, "loss", 0, "share of event batches that are lost on their way and replayed when the gap is seen")
	fs.BoolVar(&o.noReplay, "no-replay", false, "engines have no replay endpoint: lost batches stay lost")
	fs.Float64Var(&o.kv, "kv", 1, "factor on the engines' KV cache")
	fs.IntVar(&o.blockSize, "block-size", 16, "tokens per KV block")
	fs.IntVar(&o.routers, "routers", 1, "routers before the engines; each request goes to one of them at random")
	fs.DurationVar(&o.peers, "peers", 0, "time until routers hear what others tell of their ledgers; 0 is 1ms, below 0 never")
}

// objective reads --slo.
func (o *sceneOptions) objective() (slo sim.SLO, err error) {
	first, between, ok := strings.Cut(o.slo, ",")
	if slo.TTFT, err = time.ParseDuration(strings.TrimSpace(first)); ok && err == nil {
		slo.ITL, err = time.ParseDuration(strings.TrimSpace(between))
	}
	if !ok || err != nil || slo.TTFT <= 0 || slo.ITL <= 0 {
		return slo, fmt.Errorf("--slo %q: two durations are needed, as in 2s,50ms", o.slo)
	}
	return slo, nil
}

// workloads are the names of all, in order.
var workloads = []string{"W1", "W2", "W3", "W5", "W6", "W6-1024", "W7", "W8", "W10", "W11"}

// scenes is what the flags ask for.
func (o *sceneOptions) scenes() (all []sim.Scene, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	names := strings.Split(o.workload, ",")
	if o.workload == "all" {
		names = workloads
	}
	for _, name := range names {
		s, err := o.scene(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (o *sceneOptions) check() error {
	switch {
	case o.workload == "" && o.trace == "":
		return errors.New("give --workload W1, or --trace FILE; --help lists the workloads")
	case o.trace != "" && strings.Contains(o.workload+",", "all,"), o.trace != "" && strings.Contains(o.workload, ","):
		return errors.New("--trace replaces one workload's trace: name one workload beside it, or none")
	case o.format != "mooncake" && o.format != "azure":
		return fmt.Errorf("--format %q is neither mooncake nor azure", o.format)
	case o.kv <= 0 || o.blockSize < 1:
		return errors.New("--kv and --block-size must be above 0")
	case o.speedup < 0 || o.jitter < 0 || o.scale < 0 || o.pods < 0 || o.prefill < 0 || o.decode < 0:
		return errors.New("--speedup, --jitter, --scale and numbers of pods must not be below 0")
	case o.routers < 0 || o.routers > 64:
		return errors.New("--routers must not be below 0 or above 64")
	case o.loss < 0 || o.loss > 1:
		return errors.New("--loss must be a share from 0 to 1")
	case o.blockSize > 16 && o.blockSize%16 != 0:
		return fmt.Errorf("--block-size %d: a multiple of 16 is needed, or less than it", o.blockSize)
	}
	return nil
}

func (o *sceneOptions) scene(name string) (s sim.Scene, err error) {
	switch {
	case o.trace != "" || name == "W8" || name == "W11":
		s, err = o.replay(name)
	default:
		if s, err = sim.Find(sim.Catalogue(), name); err != nil {
			return s, fmt.Errorf("--workload %q is none of %s", name, strings.Join(workloads, ", "))
		}
		// With several workloads the flag is for those that have groups.
		if strings.Contains(o.workload, ",") || o.workload == "all" {
			if grouped, err := s.WithGroups(o.groups, o.prompts); err == nil {
				s = grouped
			}
		} else {
			s, err = s.WithGroups(o.groups, o.prompts)
		}
	}
	if err != nil {
		return s, err
	}
	if o.profile != "" {
		if s.Fleet.Profile, err = enginesim.ProfileByName(o.profile); err != nil {
			return s, fmt.Errorf("--profile: %w", err)
		}
	}
	if o.pods+o.prefill+o.decode != 0 {
		s.Fleet.Pods, s.Fleet.Prefill, s.Fleet.Decode = o.pods, o.prefill, o.decode
	}
	if o.scale != 0 {
		s.Scale = o.scale
	}
	s.Fleet.KV = cmp.Or(s.Fleet.KV, 1) * o.kv
	s.Fleet.Lag, s.Fleet.Loss, s.Fleet.NoReplay, s.Fleet.BlockSize = o.lag, o.loss, o.noReplay, o.blockSize
	if o.routers > 1 { // one router has no peers, and its setup is that of runs from before
		s.Fleet.Routers, s.Fleet.Peers = o.routers, o.peers
	}
	return s, nil
}

// replay is a scene of a trace file, or of the public trace of W8 or W11.
func (o *sceneOptions) replay(name string) (sim.Scene, error) {
	pods, speedup := 16, cmp.Or(o.speedup, 1)
	if name == "" {
		name = "trace"
	}
	azure := o.format == "azure"
	path := o.trace
	switch {
	case path == "" && name == "W11":
		azure, pods, speedup = true, 8, cmp.Or(o.speedup, 10)
		path, _ = workload.FindAzure(".")
	case path == "":
		path, _ = workload.Find(".")
	}
	var t workload.Trace
	var err error
	switch {
	case path == "":
		fmt.Fprintf(os.Stderr, "%s: the public trace is not at hand, a generated workload stands in for it.\n", name)
		t = workload.Generate(time.Hour, 1)
	case azure:
		t, err = workload.OpenAzure(path)
	default:
		t, err = workload.Open(path)
	}
	if err == nil && len(t.Requests) == 0 {
		err = fmt.Errorf("%s: no requests in it", path)
	}
	if err != nil {
		return sim.Scene{}, fmt.Errorf("trace in the %s format: %w", map[bool]string{true: "azure", false: "mooncake"}[azure], err)
	}
	return sim.Replay(name, t, pods, speedup, o.jitter), nil
}
