// Package ingest reads the KV-cache events of vLLM engines and writes the event log.
//
// For every engine that it is told of it finds out pool, block size and capacity from the engine itself, reads the
// engine's ZeroMQ stream, folds it with libs/prefix, and publishes what changed to stream EVENTS: a bucket of a pool
// has one owner among the replicas, and the owner has one fenced publish in flight. It also writes the engines' records.
//
// It answers no request, keeps nothing on disk, and drops nothing that it cannot prove to be void: an engine whose
// cache it knows in part only is marked so. Prompts and tokens leave it only as hashes.
package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
)

// Config of Run. NATS is required; the rest has usable zero values.
type Config struct {
	NATS     string   // URL
	Instance string   // name among the members; "" is the host's name with a random suffix
	Engines  []Engine // as ParseEngine and ReadEngines make them
	// Changes tells, each time, all engines that there are from then on, for who starts and stops them; nil is never.
	Changes <-chan []Engine

	Log     *slog.Logger          // nil is slog.Default()
	Metrics prometheus.Registerer // nil is none
	Health  *daemon.Health        // part "ingest" is ready when the first engine has answered; nil is none

	times times // for tests
}

// times are the delays of the protocol; a zero field means its default.
type times struct {
	probe      time.Duration // between two looks at an engine's HTTP pages
	retry      time.Duration // the same while it does not answer at first
	gone       time.Duration // without an answer, until an engine counts as gone
	firstCheck time.Duration // from the start of a session to its first check
	check      time.Duration // between checks
	replayIdle time.Duration // silence that ends a replay
	fenced     time.Duration // for which a bucket is left alone when another owner wrote
	record     time.Duration // between two looks at what an engine's record should say
	silent     time.Duration // without an event, until an engine that computes prompts counts as silent
	upkeep     time.Duration // between two looks at whether NATS still has what engines depend on
	ask        time.Duration // between two answers to readers who ask for a bucket
	flush      time.Duration // for publishing the rest at the end
	gauges     time.Duration // between two settings of the gauges
	digest     time.Duration // between two digests of an engine
	look       time.Duration // between two looks at how far the event stream reaches
	join       time.Duration // for a socket to connect, before a bucket with engines that cannot replay is claimed
}

func (t times) withDefaults() times {
	for _, f := range []struct {
		value   *time.Duration
		initial time.Duration
	}{{&t.probe, 5 * time.Second}, {&t.retry, time.Second}, {&t.gone, 30 * time.Second}, {&t.firstCheck, time.Second},
		{&t.check, 15 * time.Second}, {&t.replayIdle, 5 * time.Second}, {&t.fenced, 6 * time.Second}, {&t.record, 500 * time.Millisecond},
		{&t.silent, 10 * time.Second}, {&t.upkeep, 5 * time.Second}, {&t.ask, 2 * time.Second}, {&t.flush, 2 * time.Second},
		{&t.gauges, 5 * time.Second}, {&t.digest, 10 * time.Second}, {&t.look, 3 * time.Second}, {&t.join, 200 * time.Millisecond}} {
		if *f.value == 0 {
			*f.value = f.initial
		}
	}
	return t
}

// Run reads the engines until ctx ends, publishes what it has read, for 2 s at most, and returns nil. It fails only where
// the configuration cannot work.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Instance == "" {
		cfg.Instance = fleet.NewInstance()
	}
	var err error
	if cfg.Engines, err = usable(cfg.Engines); err != nil {
		return err
	}
	cfg.times = cfg.times.withDefaults()
	cfg.Health.Set("ingest", "connecting to NATS")
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: "ingest " + cfg.Instance, Log: cfg.Log})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer conn.Close()
	cfg.Health.Set("ingest", "meeting the fleet")
	s := &service{cfg: cfg, conn: conn, log: cfg.Log, m: newMetrics(cfg.Metrics),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}},
		found:  make(chan struct{}, 1), buckets: map[fleet.BucketID]*ownedBucket{}, readers: make(chan struct{}, maxReaders)}
	if s.fleet, err = fleet.Meet(ctx, conn, cfg.Log, &s.seed); err != nil {
		return nil // ctx has ended
	}
	s.run(ctx)
	return nil
}
