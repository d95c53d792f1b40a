package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/realtime"
	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
	"github.com/warmpath/warmpath/services/router"
)

// routersCheck lets one router place a trace, several that hear one another, and several that do not.
type routersCheck struct {
	engines engineOptions
	trace   traceOptions
	routers int
	trials  int
	out     string
}

func routersCommand() *ffcli.Command {
	fs := flag.NewFlagSet("loadgen routers", flag.ContinueOnError)
	var c routersCheck
	c.engines.register(fs)
	c.trace.register(fs, 100)
	must(fs.Set("n", "6"))
	must(fs.Set("jitter", "3"))
	must(fs.Set("time-scale", "6"))
	fs.IntVar(&c.routers, "routers", 2, "routers to compare with one")
	fs.IntVar(&c.trials, "trials", 5, "how often; arrivals are jittered anew each time, and the same for all three")
	fs.StringVar(&c.out, "json", "bench/routers.json", "file to write the figures to; the services' log goes beside it")
	return &ffcli.Command{
		Name:       "routers",
		ShortUsage: "loadgen routers [flags]",
		ShortHelp:  "Compare several routers with one on a trace, over sockets",
		LongHelp: `Replays a trace through all services to simulated engines: with one router, with several that share their ledgers over
NATS, and with as many that each have a NATS server, ingest, index and scorer of their own before the same engines, so
that none hears another. Requests go to routers in turn. Placements are judged in virtual time.`,
		FlagSet: fs,
		Exec:    c.run,
	}
}

// routersResult is bench/routers.json.
type routersResult struct {
	report.Header
	TimeScale float64 `json:"time_scale"`
	Engines   int     `json:"engines"`
	realtime.Routers
}

func (c *routersCheck) run(ctx context.Context, _ []string) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.out), 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(filepath.Dir(c.out), "routers.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(os.Stderr, "about %s\n", (time.Duration(3*c.trials) * (time.Duration(c.trace.seconds/c.engines.scale*float64(time.Second)) + 4*time.Second)).Round(10*time.Second))
	result := routersResult{Header: report.NewHeader(1, time.Now()), TimeScale: c.engines.scale, Engines: c.engines.count}
	result.Routers = realtime.Routers{Seconds: c.trace.seconds, Routers: c.routers}
	for range c.trials {
		trace, err := c.trace.load()
		if err != nil {
			return err
		}
		trial, err := c.trial(ctx, trace, log)
		if err != nil {
			return err
		}
		result.Trace = trace.Name
		result.Add(trial)
		if err := errors.Join(daemon.WriteJSON(c.out, result), result.Table(os.Stdout)); err != nil {
			return err
		}
		c.trace.seed++
	}
	fmt.Printf("\nfigures  %s\n", c.out)
	return nil
}

func (c *routersCheck) check() error {
	if err := c.engines.apart(); err != nil {
		return err
	}
	if c.engines.prefill > 0 || c.routers < 2 || c.trials < 1 || c.engines.blockSize != realtime.BlockSize {
		return fmt.Errorf("--routers %d, --trials %d: it takes two routers, a trial, and engines of role both with blocks of %d tokens",
			c.routers, c.trials, realtime.BlockSize)
	}
	return nil
}

// trial serves one trace three times, each with engines that have empty caches.
func (c *routersCheck) trial(ctx context.Context, trace workload.Trace, log io.Writer) (t realtime.Trial, err error) {
	for _, arm := range []struct {
		name  string
		serve func(ctx context.Context, engines fleet, log io.Writer, work func(context.Context, []string) error) error
		into  *realtime.Quality
	}{
		{"one router", c.alone, &t.One},
		{fmt.Sprint(c.routers, " routers"), c.told, &t.Told},
		{fmt.Sprint(c.routers, " deaf routers"), c.deaf, &t.Deaf},
	} {
		if *arm.into, err = c.arm(ctx, arm.name, trace, log, arm.serve); err != nil {
			return t, fmt.Errorf("%s: %w", arm.name, err)
		}
	}
	return t, nil
}

// arm sends the trace to the routers that serve runs, in turn, and judges where they placed it.
func (c *routersCheck) arm(
	ctx context.Context, name string, trace workload.Trace, log io.Writer,
	serve func(context.Context, fleet, io.Writer, func(context.Context, []string) error) error,
) (realtime.Quality, error) {
	engines, err := c.engines.start(ctx)
	if err != nil {
		return realtime.Quality{}, err
	}
	defer engines.close()
	var result *run.Result
	err = serve(ctx, engines, log, func(ctx context.Context, routers []string) (err error) {
		result, err = replay(ctx, name, run.Options{
			URL: routers[0], Others: routers[1:], Model: c.engines.model, TimeScale: c.engines.scale,
		}, trace)
		return err
	})
	if err != nil {
		return realtime.Quality{}, err
	}
	profile, err := enginesim.ProfileByName(c.engines.profile)
	if err != nil {
		return realtime.Quality{}, err
	}
	if c.engines.kvTokens > 0 {
		profile.KVTokens = c.engines.kvTokens
	}
	seats := map[string]int{}
	for i := range engines {
		seats[engineName(i)] = i
	}
	return realtime.Judge(trace, result, seats, profile)
}

// alone is one router.
func (c *routersCheck) alone(ctx context.Context, engines fleet, log io.Writer, work func(context.Context, []string) error) error {
	return c.stack(ctx, engines, log, func(ctx context.Context, a up.Addresses) error { return work(ctx, []string{a.Router}) })
}

// deaf is several routers of which each has services of its own.
func (c *routersCheck) deaf(ctx context.Context, engines fleet, log io.Writer, work func(context.Context, []string) error) error {
	var more func(ctx context.Context, routers []string) error
	more = func(ctx context.Context, routers []string) error {
		if len(routers) == c.routers {
			return work(ctx, routers)
		}
		return c.stack(ctx, engines, log, func(ctx context.Context, a up.Addresses) error { return more(ctx, append(routers, a.Router)) })
	}
	return more(ctx, nil)
}

// told is several routers on one NATS server. Work begins once each hears all others.
func (c *routersCheck) told(ctx context.Context, engines fleet, log io.Writer, work func(context.Context, []string) error) error {
	return c.stack(ctx, engines, log, func(ctx context.Context, a up.Addresses) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		group, ctx := errgroup.WithContext(ctx)
		routers := []string{a.Router}
		for i := 1; i < c.routers; i++ {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				stop()
				return errors.Join(err, group.Wait())
			}
			routers = append(routers, "http://"+listener.Addr().String())
			group.Go(func() error {
				return router.Run(ctx, router.Config{
					NATS: a.NATS, Instance: fmt.Sprint("router-", i), Listener: listener, Seed: c.engines.seed + uint64(i),
					Log: slog.New(slog.NewJSONHandler(log, nil)), Metrics: prometheus.NewRegistry(),
				})
			})
		}
		group.Go(func() error {
			defer stop()
			if err := awaitPeers(ctx, routers); err != nil {
				return err
			}
			return work(ctx, routers)
		})
		return group.Wait()
	})
}

func (c *routersCheck) stack(ctx context.Context, engines fleet, log io.Writer, work func(context.Context, up.Addresses) error) error {
	dir, err := os.MkdirTemp("", "warmpath-routers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return together(ctx, log, engines, up.Config{DataDir: dir, Listen: "127.0.0.1:0", Seed: c.engines.seed}, work)
}

// awaitPeers returns once each router says that it hears all others.
func awaitPeers(ctx context.Context, routers []string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	heard := fmt.Appendf(nil, "\nwarmpath_router_peers %d\n", len(routers)-1)
	for _, url := range routers {
		for !bytes.Contains(scrape(ctx, url), heard) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not hear the others: %w", url, ctx.Err())
			case <-poll.C:
			}
		}
	}
	return nil
}
