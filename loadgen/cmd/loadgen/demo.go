package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"
	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
	"github.com/warmpath/warmpath/services/ingest"
)

// demo compares routing policies on one trace, each with engines and services of its own.
type demo struct {
	engines  engineOptions
	trace    traceOptions
	policies string
	out      string
	scale    bool          // show autoscaling instead
	startup  time.Duration // of an engine then, in its time
}

func demoCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen demo", flag.ContinueOnError)
	var d demo
	d.engines.register(fs)
	d.trace.register(fs, 300)
	fs.StringVar(&d.policies, "policies", "round-robin,warm", "routing policies to compare, in this order")
	fs.StringVar(&d.out, "out", "bench", "folder for demo.json, demo.html and the logs")
	fs.BoolVar(&d.scale, "autoscale", false, "show engines that follow a load up and down instead: --model, --seed, --startup and --out are heeded")
	fs.DurationVar(&d.startup, "startup", 30*time.Second, "with --autoscale: how long an engine takes to start, in its own time")
	must(fs.Set("kv-tokens", "1000000"))
	must(fs.Set("time-scale", "10"))
	return &ffcli.Command{
		Name:       "demo",
		ShortUsage: "loadgen demo [flags]",
		ShortHelp:  "Replay a trace through simulated engines and all services, one policy after another",
		LongHelp: `Runs simulated vLLM engines and the five services with NATS embedded, in this process, and replays a trace through
them once for each policy: the same requests at the same times, with cold caches each time.`,
		FlagSet: fs,
		Exec:    d.run,
	}
}

func must(err error) {
	if err != nil {
		panic(err) // a flag that is registered above takes its own default
	}
}

func (d *demo) run(ctx context.Context, _ []string) error {
	if d.scale {
		return d.autoscale(ctx)
	}
	started := time.Now()
	if err := d.engines.apart(); err != nil {
		return err
	}
	trace, err := d.trace.load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.out, 0o755); err != nil {
		return err
	}
	policies := strings.Split(d.policies, ",")
	wall := time.Duration(d.trace.seconds / d.engines.scale * float64(time.Second))
	fmt.Fprintf(os.Stderr, "%d requests of %s, %d engines, %d policies: about %s\n", len(trace.Requests), trace.Name,
		d.engines.count, len(policies), (time.Duration(len(policies)) * (wall + 10*time.Second)).Round(10*time.Second))
	c := report.Comparison{
		Trace: trace.Name, Seconds: d.trace.seconds, TimeScale: d.engines.scale,
		Model: d.engines.profile, KVTokens: d.engines.kvTokens, Engines: d.engines.names(),
	}
	for _, policy := range policies {
		result, err := d.arm(ctx, policy, trace)
		if err != nil {
			return fmt.Errorf("policy %s: %w", policy, err)
		}
		c.Arms = append(c.Arms, report.Arm{Policy: policy, Result: result})
	}
	return d.publish(&c, started)
}

// arm runs one policy with engines and services of its own.
func (d *demo) arm(ctx context.Context, policy string, trace workload.Trace) (*run.Result, error) {
	engines, err := d.engines.start(ctx)
	if err != nil {
		return nil, err
	}
	defer engines.close()
	dir, err := os.MkdirTemp("", "warmpath-demo-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	logFile, err := os.Create(filepath.Join(d.out, "demo-"+policy+".log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()

	var result *run.Result
	err = together(ctx, logFile, engines, up.Config{DataDir: dir, Listen: "127.0.0.1:0", Policy: policy, Seed: d.engines.seed},
		func(ctx context.Context, a up.Addresses) error {
			result, err = replay(ctx, policy, run.Options{
				URL: a.Router, Model: d.engines.model, TimeScale: d.engines.scale,
			}, trace)
			return err
		})
	return result, err
}

// together runs the five services in front of the engines for as long as work takes.
func together(ctx context.Context, log io.Writer, engines fleet, cfg up.Config, work func(context.Context, up.Addresses) error) error {
	for i, e := range engines {
		cfg.Engines = append(cfg.Engines, ingest.Engine{Name: engineName(i), URL: e.URL(), Events: e.Events(), Replay: e.Replay(), Role: e.role})
	}
	cfg.Process = daemon.NewProcess("demo", log, slog.LevelInfo)
	return served(ctx, cfg, work)
}

// served runs the five services for as long as work takes.
func served(ctx context.Context, cfg up.Config, work func(context.Context, up.Addresses) error) error {
	ready := make(chan up.Addresses, 1)
	cfg.Ready = func(a up.Addresses) { ready <- a }
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return up.Run(ctx, cfg) })
	group.Go(func() error {
		defer stop()
		select {
		case a := <-ready:
			return work(ctx, a)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(30 * time.Second):
			return errors.New("the services are not ready after 30 s; see the log: " + fmt.Sprint(cfg.Process.Health.Ready()))
		}
	})
	return group.Wait()
}

// publish writes demo.json and demo.html and prints the table.
func (d *demo) publish(c *report.Comparison, started time.Time) error {
	page := filepath.Join(d.out, "demo.html")
	file, err := os.Create(page)
	if err != nil {
		return err
	}
	if err := errors.Join(c.HTML(file), file.Close()); err != nil {
		return err
	}
	figures := struct {
		report.Header
		report.Demo
	}{report.NewHeader(1, started), c.Demo(page)}
	if err := daemon.WriteJSON(filepath.Join(d.out, "demo.json"), figures); err != nil {
		return err
	}
	if err := c.Table(os.Stdout); err != nil {
		return err
	}
	fmt.Printf("\nreport   %s\nfigures  %s\nlogs     %s (one decision line a request: Got pod scores)\n",
		page, filepath.Join(d.out, "demo.json"), filepath.Join(d.out, "demo-<policy>.log"))
	for _, arm := range c.Arms {
		if failed := arm.Result.Summary().Errors; failed > 0 {
			return fmt.Errorf("policy %s: %d requests failed", arm.Policy, failed)
		}
	}
	return nil
}
