// Package up runs the five services in one process around an embedded NATS server: `warmpath up`, the demo and the
// oracle test. It wires and drains; it decides nothing.
package up

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/index"
	"github.com/warmpath/warmpath/services/ingest"
	"github.com/warmpath/warmpath/services/router"
	"github.com/warmpath/warmpath/services/scorer"
)

// Config says which engines to serve, where to listen and where to keep the event log.
type Config struct {
	Engines []ingest.Engine
	Listen  string // router, host:port; port 0 picks a free one
	DataDir string // the embedded NATS server keeps its streams here; locked while in use
	Policy  string // routing policy; empty is warm
	Keys    string // file or folder of API keys; empty is none
	NoAuth  bool   // serve who has no key, also on addresses that others reach
	SLO     router.SLO
	Scrape  time.Duration // between two looks at an engine's metrics; 0 is 1 s, below 0 none
	Seed    uint64        // for the router's randomness
	Shards  int           // index shards; 0 is 1
	Scaling Scaling       // of engines
	// Tokenizers are the scorer's.
	Tokenizers []scorer.Tokenizer
	// Process supplies log, metrics registry and health.
	Process *daemon.Process
	// Ready is called once, when the first request can be served.
	Ready func(Addresses)
}

// Scaling is what scaling needs of the services.
type Scaling struct {
	Policies string                 // file of ScalingPolicies; see autoscaler.Config
	Fleet    autoscaler.Fleet       // starts and stops engines; nil is nobody
	Changes  <-chan []ingest.Engine // of the engines, where Fleet changes them
	Speed    float64                // how many times faster than real time the engines run, if they are simulated; 0 is 1
	Hold     time.Duration          // how long a request waits while no engine takes requests; 0 is 10 s
}

// Addresses are the URLs of what Run started; the shape of `warmpath up --ready-file`.
type Addresses struct {
	Router  string `json:"router"`
	Metrics string `json:"metrics"`
	Index   string `json:"index"`
	Scorer  string `json:"scorer"`
	NATS    string `json:"nats"`
}

// part is one running service. Parts stop in the order in which they stand in stack.parts.
type part struct {
	name string
	stop context.CancelFunc
	done chan error
}

type stack struct {
	log   *slog.Logger
	parts []part // router first, ingest last: each drains before what it depends on stops
	fail  context.CancelCauseFunc
}

// Run starts everything, calls cfg.Ready, and serves until ctx ends; then it drains from the router backwards and
// returns nil. It returns an error when a service fails or the data directory is in use.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Shards < 0 || cfg.Shards > fleet.Buckets {
		return fmt.Errorf("%d index shards: there may be 1 to %d", cfg.Shards, fleet.Buckets)
	}
	unlock, err := lock(cfg.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	nats, err := embedded.Start(embedded.Options{Dir: cfg.DataDir})
	if err != nil {
		return fmt.Errorf("start the embedded NATS server: %w", err)
	}
	defer nats.Stop()

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s := &stack{log: cfg.Process.Log, fail: fail}
	addresses, err := s.start(context.WithoutCancel(ctx), cfg, nats.URL())
	if err == nil {
		err = s.await(ctx, cfg, addresses)
	}
	return errors.Join(err, s.drain())
}

// start begins the services in the order of the data flow, so that each finds the one before it.
func (s *stack) start(ctx context.Context, cfg Config, natsURL string) (Addresses, error) {
	p := cfg.Process
	addresses := Addresses{NATS: natsURL}
	s.run(ctx, "ingest", func(ctx context.Context) error {
		return ingest.Run(ctx, ingest.Config{
			NATS: natsURL, Instance: "ingest-0", Engines: cfg.Engines, Changes: cfg.Scaling.Changes,
			Log: p.Log.With("component", "ingest"), Metrics: p.Registry, Health: p.Health,
		})
	})
	shards := max(cfg.Shards, 1)
	for shard := range shards {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return addresses, fmt.Errorf("listen for the index: %w", err)
		}
		if shard == 0 {
			addresses.Index = "grpc://" + listener.Addr().String()
		}
		name := fmt.Sprintf("index-%d", shard)
		metrics := prometheus.WrapRegistererWith(prometheus.Labels{"shard": fmt.Sprint(shard)}, p.Registry)
		s.run(ctx, name, func(ctx context.Context) error {
			return index.Run(ctx, index.Config{
				NATS: natsURL, Instance: name, Listener: listener, Shards: shards, Shard: shard,
				Log: p.Log.With("component", name), Metrics: metrics, Health: p.Health,
			})
		})
	}
	scorerListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return addresses, fmt.Errorf("listen for the scorer: %w", err)
	}
	addresses.Scorer = "grpc://" + scorerListener.Addr().String()
	s.run(ctx, "scorer", func(ctx context.Context) error {
		return scorer.Run(ctx, scorer.Config{
			NATS: natsURL, Instance: "scorer-0", Listener: scorerListener, Tokenizers: cfg.Tokenizers,
			Log: p.Log.With("component", "scorer"), Metrics: p.Registry, Health: p.Health,
		})
	})
	s.run(ctx, "autoscaler", func(ctx context.Context) error {
		return autoscaler.Run(ctx, autoscaler.Config{
			NATS: natsURL, Instance: "autoscaler-0", Fleet: cfg.Scaling.Fleet, Policies: cfg.Scaling.Policies,
			StateDir: cfg.DataDir, Speed: cfg.Scaling.Speed, Pages: &p.Pages,
			Log: p.Log.With("component", "autoscaler"), Metrics: p.Registry, Health: p.Health,
		})
	})
	routerListener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return addresses, fmt.Errorf("listen for requests: %w", err)
	}
	addresses.Router = "http://" + routerListener.Addr().String()
	s.run(ctx, "router", func(ctx context.Context) error {
		return router.Run(ctx, router.Config{
			NATS: natsURL, Instance: "router-0", Listener: routerListener, Policy: cfg.Policy, Seed: cfg.Seed,
			Keys: cfg.Keys, NoAuth: cfg.NoAuth, SLO: cfg.SLO, Scrape: cfg.Scrape, Hold: cfg.Scaling.Hold,
			Report: time.Duration(float64(time.Second) / cmp.Or(cfg.Scaling.Speed, 1)),
			Log:    p.Log.With("component", "router"), Metrics: p.Registry, Health: p.Health,
		})
	})
	return addresses, nil
}

// run starts one service under its own context, so that drain can stop the services one after another.
func (s *stack) run(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	p := part{name: name, stop: cancel, done: make(chan error, 1)}
	s.parts = append([]part{p}, s.parts...)
	go func() {
		err := run(ctx)
		if err == nil && ctx.Err() == nil {
			err = errors.New("ended by itself")
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%s: %w", name, err)
			s.fail(err)
			p.done <- err
			return
		}
		p.done <- nil
	}()
}

// await calls cfg.Ready once the first request can be served, and returns when ctx ends.
func (s *stack) await(ctx context.Context, cfg Config, addresses Addresses) error {
	watched, err := watchFleet(ctx, addresses.NATS, cfg)
	if ctx.Err() != nil {
		return nil // why it ended, a service's error says
	}
	if err != nil {
		return err
	}
	defer watched.conn.Close()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	say := time.NewTicker(5 * time.Second)
	defer say.Stop()
	for begun := time.Now(); ; {
		err := cfg.Process.Health.Ready()
		if err == nil {
			err = watched.ready(ctx, addresses.Router, time.Since(begun))
		}
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-say.C:
			s.log.Warn("not ready yet", "why", err)
		case <-poll.C:
		}
	}
	cfg.Ready(addresses)
	<-ctx.Done()
	return nil
}

// drain stops the services from the router backwards, each when the one before it has ended.
func (s *stack) drain() error {
	var all error
	for _, p := range s.parts {
		p.stop()
		all = errors.Join(all, <-p.done)
	}
	return all
}

// lock keeps two processes from writing one data directory.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data directory: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("data directory %s is in use by another process; choose one with --data-dir", dir)
	}
	return func() { file.Close() }, nil
}
