// Package index answers which engine holds which leading blocks of a prompt.
//
// It folds the event log of the buckets that it owns into one prefix.Index a pool and serves Match over gRPC. It keeps
// nothing on disk: the stream is the truth, and a restart reads it again. What the stream does not tell it asks the
// owner of the bucket to publish, and answers for the rest. It writes nothing but its own member record, and never reads
// ZeroMQ.
package index

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
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
	part       = "index"
	retryEvery = time.Second
	leaveTime  = 500 * time.Millisecond // from a member's leave until all who ask it have surely heard
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

	stray <-chan func(*store) // tests change the state behind the writer's back, in its goroutine
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
	cfg.Health.Set(part, "connecting to NATS")
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: part + "." + cfg.Instance, Log: cfg.Log})
	if err != nil {
		return err
	}
	defer conn.Close()
	cfg.Health.Set(part, "meeting the fleet")
	watcher, err := fleet.Meet(ctx, conn, cfg.Log, nil)
	if err != nil {
		return err
	}
	s := &service{cfg: cfg, conn: conn, fleet: watcher, store: newStore(owned), metrics: newMetrics(cfg.Metrics), first: make(chan struct{})}
	cfg.Log.Info("index serves", "address", s.address(), "instance", cfg.Instance, "buckets", fmt.Sprintf("%016x", owned))
	return s.run(ctx)
}

// service is a replica that has met the fleet.
type service struct {
	cfg     Config
	conn    *bus.Conn
	fleet   *fleet.Watcher
	store   *store
	metrics *metrics
	first   chan struct{} // closed when the replica is ready for the first time
}

// run serves until ctx ends. It leaves in steps, so that no answer is lost: the members are told, who asks turns to
// others, calls in progress end, and only then the state is let go.
func (s *service) run(ctx context.Context) error {
	w := newWriter(s.conn, s.store, s.fleet, s.metrics, s.cfg.Log)
	w.ready, w.visible, w.stray = s.turnReady(), s.cfg.Applied, s.cfg.stray
	r := reader{conn: s.conn, view: s.fleet.View, owned: s.store.owned, metrics: s.metrics, log: s.cfg.Log, out: w.in}
	w.ready("reading the stream")

	g, ctx := errgroup.WithContext(ctx)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return r.run(working) })
	g.Go(func() error { return w.run(working) })
	g.Go(func() error {
		defer stopWorking()
		return daemon.ServeGRPC(serving, s.cfg.Listener, newGRPC(&server{store: s.store, metrics: s.metrics}), drainTime)
	})
	g.Go(func() error {
		defer stopServing()
		return s.announce(ctx)
	})
	return g.Wait()
}

// turnReady returns what tells the world whether Match may be asked.
func (s *service) turnReady() func(why string) {
	isReady := sync.OnceFunc(func() { close(s.first) })
	return func(why string) {
		s.cfg.Health.Set(part, why)
		if s.store.ready.Store(why == ""); why == "" {
			isReady()
		}
	}
}

// announce is a member until ctx ends, and returns when those who ask have had time to hear that it left.
func (s *service) announce(ctx context.Context) error {
	select { // so that a quick start is announced as ready at once
	case <-s.first:
	case <-time.After(fleet.Period):
	case <-ctx.Done():
		return nil
	}
	err := fleet.Announce(ctx, s.conn, func() fleet.Member {
		return fleet.Member{Service: part, Instance: s.cfg.Instance, Address: s.address(),
			Buckets: s.store.covered.Load(), Applied: s.store.applied.Load(), Ready: s.store.ready.Load()}
	})
	asks := func(m fleet.Member) bool { return m.Service == "scorer" }
	if slices.ContainsFunc(s.fleet.View().Members, asks) {
		time.Sleep(leaveTime)
	}
	return err
}

func (s *service) address() string { return fleet.Reachable(s.cfg.Listener.Addr(), s.conn) }

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
