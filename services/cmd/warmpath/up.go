package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/peterbourgon/ff/v3"
	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
	"github.com/warmpath/warmpath/services/ingest"
	"github.com/warmpath/warmpath/services/scorer"
)

type upFlags struct {
	config      up.Config
	enginesFile string
	ops         string
	readyFile   string
	level       slog.Level
}

func upCommand() *ffcli.Command {
	var f upFlags
	fs := flag.NewFlagSet("warmpath up", flag.ContinueOnError)
	fs.Func("engine", ingest.EngineUsage, func(value string) error {
		engine, err := ingest.ParseEngine(value)
		f.config.Engines = append(f.config.Engines, engine)
		return err
	})
	fs.StringVar(&f.enginesFile, "engines-file", "", "`file` that lists the engines, as loadgen engines --ready-file writes it")
	fs.StringVar(&f.config.Listen, "listen", "127.0.0.1:8080", "host:port of the OpenAI API; port 0 picks a free one")
	fs.StringVar(&f.ops, "ops", "127.0.0.1:8081", "host:port of /metrics, /healthz, /readyz and /debug/pprof")
	fs.StringVar(&f.config.DataDir, "data-dir", defaultDataDir(), "`folder` for the event log of the embedded NATS server")
	fs.StringVar(&f.config.Policy, "policy", "warm", "routing policy: warm, least-tokens, round-robin or random")
	fs.IntVar(&f.config.Shards, "shards", 1, "number of index shards")
	fs.Func("tokenizer", scorer.TokenizerUsage, func(value string) error {
		tokenizer, err := scorer.ParseTokenizer(value)
		f.config.Tokenizers = append(f.config.Tokenizers, tokenizer)
		return err
	})
	fs.StringVar(&f.readyFile, "ready-file", "", "`file` to write the URLs to once the first request can be served")
	fs.StringVar(&f.config.Keys, "keys", "", "`file` or folder of API keys, read again when it changes")
	fs.DurationVar(&f.config.Scrape, "scrape", time.Second, "between two looks at an engine's metrics; below 0 never")
	fs.DurationVar(&f.config.Scaling.Hold, "hold", 10*time.Second, "how long a request waits while no engine takes requests")
	fs.StringVar(&f.config.Scaling.Policies, "scaling-policy", "", "`file` of ScalingPolicies: how many engines they would have is shown, not acted on")
	fs.BoolVar(&f.config.NoAuth, "no-auth", false, "serve who has no API key, also on other than loopback addresses")
	fs.DurationVar(&f.config.SLO.TTFT, "slo-ttft", 0, "what the time to the first token should keep; 0 is no objective")
	fs.DurationVar(&f.config.SLO.ITL, "slo-itl", 0, "what the time between tokens should keep; 0 is no objective")
	fs.TextVar(&f.level, "log-level", slog.LevelInfo, "least level to log: debug, info, warn, error")
	return &ffcli.Command{
		Name:       "up",
		ShortUsage: "warmpath up --engine URL [--engine URL ...] [flags]",
		ShortHelp:  "Run ingest, index, scorer, router and autoscaler in one process, with NATS embedded",
		LongHelp:   "Run all five services in one process, with NATS embedded. Ctrl-C drains and exits.\nEvery flag may be set as WARMPATH_<FLAG> in the environment.",
		FlagSet:    fs,
		Options:    []ff.Option{ff.WithEnvVarPrefix(daemon.EnvPrefix)},
		Exec:       f.run,
	}
}

func (f *upFlags) run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q; engines are given as --engine URL", args[0])
	}
	if f.enginesFile != "" {
		engines, err := ingest.ReadEngines(f.enginesFile)
		if err != nil {
			return err
		}
		f.config.Engines = append(f.config.Engines, engines...)
	}
	if len(f.config.Engines) == 0 {
		return errors.New("no engine: give at least one --engine URL (see warmpath up --help)")
	}
	listener, err := net.Listen("tcp", f.ops)
	if err != nil {
		return fmt.Errorf("listen for operations: %w", err)
	}
	p := daemon.NewProcess("warmpath", os.Stderr, f.level)
	return p.Run(ctx, listener, func(ctx context.Context, p *daemon.Process) error {
		cfg := f.config
		cfg.Process = p
		cfg.Ready = func(a up.Addresses) {
			a.Metrics = "http://" + listener.Addr().String()
			announce(a, len(cfg.Engines))
			if err := daemon.WriteJSON(f.readyFile, a); err != nil {
				p.Log.Error("ready file not written", "err", err)
			}
		}
		return up.Run(ctx, cfg)
	})
}

func announce(a up.Addresses, engines int) {
	fmt.Printf(`Warmpath serves %d engine(s).

  OpenAI API   %[2]s/v1
  metrics      %[3]s/metrics
  health       %[3]s/readyz

  curl %[2]s/v1/models

Ctrl-C drains and exits.
`, engines, a.Router, a.Metrics)
}

func defaultDataDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "warmpath")
}
