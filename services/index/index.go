// Package index answers which engine holds which leading blocks of a prompt.
//
// It folds the event log of the buckets that it owns into one prefix.Index a pool and serves Match over gRPC. It keeps
// nothing on disk and asks nobody for state: the stream is the truth, and a restart reads it again. It writes nothing
// but its own member record, and never reads ZeroMQ.
package index

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

const (
	service    = "index"
	retryEvery = time.Second
)

// Config of Run. NATS is required; the rest has usable zero values.
type Config struct {
	NATS     string       // URL
	Instance string       // name among the members; "" is the host's name with a random suffix
	Listen   string       // host:port of gRPC; "" is 127.0.0.1:0
	Listener net.Listener // used instead of Listen
	Shards   int          // this replica owns the buckets that are Shard modulo Shards; 0 is one shard
	Shard    int

	Log     *slog.Logger          // nil is slog.Default()
	Metrics prometheus.Registerer // nil is none
	Health  *daemon.Health        // part "index" is ready when the stream was read to its end; nil is none

	// Applied is called, by the one goroutine that writes, with each delta read live that Match can see from now on: for
	// measurements that the histogram of the lag is too coarse for. It must not block. nil is none.
	Applied func(*eventsv1.Delta)
}

// Run serves until ctx ends, then leaves the members, finishes the calls in progress and returns nil.
func Run(ctx context.Context, cfg Config) error {
	owned, err := ownedBuckets(cfg.Shards, cfg.Shard)
	if err != nil {
		return err
	}
	if cfg, err = cfg.complete(); err != nil {
		return err
	}
	defer cfg.Listener.Close()
	err = run(ctx, cfg, owned)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func run(ctx context.Context, cfg Config, owned uint64) error {
	cfg.Health.Set(service, "connecting to NATS")
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: service + "." + cfg.Instance, Log: cfg.Log})
	if err != nil {
		return err
	}
	defer conn.Close()
	cfg.Health.Set(service, "meeting the fleet")
	watcher, err := fleet.Meet(ctx, conn, cfg.Log, nil)
	if err != nil {
		return err
	}
	s := newStore(owned)
	m := newMetrics(cfg.Metrics)
	w := newWriter(conn, s, watcher, m, cfg.Log)
	w.visible = cfg.Applied
	r := reader{conn: conn, owned: owned, log: cfg.Log, out: w.in}
	address := fleet.Reachable(cfg.Listener.Addr(), conn)
	first := make(chan struct{})
	isReady := sync.OnceFunc(func() { close(first) })
	w.ready = func(why string) {
		cfg.Health.Set(service, why)
		if s.ready.Store(why == ""); why == "" {
			isReady()
		}
	}
	w.ready("reading the stream")

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.run(ctx) })
	g.Go(func() error { return w.run(ctx) })
	g.Go(func() error {
		return daemon.ServeGRPC(ctx, cfg.Listener, newGRPC(&server{store: s, metrics: m}), drainTime)
	})
	g.Go(func() error {
		select { // so that a quick start is announced as ready at once
		case <-first:
		case <-time.After(fleet.Period):
		case <-ctx.Done():
			return nil
		}
		return fleet.Announce(ctx, conn, func() fleet.Member {
			return fleet.Member{Service: service, Instance: cfg.Instance, Address: address,
				Buckets: s.covered.Load(), Applied: s.applied.Load(), Ready: s.ready.Load()}
		})
	})
	cfg.Log.Info("index serves", "address", address, "instance", cfg.Instance, "buckets", fmt.Sprintf("%016x", owned))
	return g.Wait()
}

func (cfg Config) complete() (Config, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Instance == "" {
		cfg.Instance = fleet.NewInstance()
	}
	var err error
	cfg.Listener, err = daemon.Listen(cfg.Listener, cfg.Listen)
	return cfg, err
}
