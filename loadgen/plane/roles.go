package plane

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/index"
	"github.com/warmpath/warmpath/services/ingest"
)

// starter starts a role; the value is its answer.
type starter func(ctx context.Context, config []byte) (role, any, error)

func roles() map[string]starter {
	return map[string]starter{"nats": startNATS, "ingest": startIngest, "index": startIndex, "engines": startEngines, "writer": startWriter}
}

// cpuSeconds is the processor time of this process, in user and system mode.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func unknownCall(name string) error { return fmt.Errorf("call %q is unknown", name) }

// natsRole is a NATS server with JetStream on files.
type natsRole struct{ server *embedded.Server }

type natsConfig struct{ Dir string }

func startNATS(_ context.Context, config []byte) (role, any, error) {
	var cfg natsConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	server, err := embedded.Start(embedded.Options{Dir: cfg.Dir})
	if err != nil {
		return nil, nil, err
	}
	return natsRole{server}, server.URL(), nil
}

func (r natsRole) handle(_ context.Context, name string, _ []byte) (any, error) {
	return nil, unknownCall(name)
}

func (r natsRole) close() { r.server.Stop() }

// service is one of our services, by its Run.
type service struct {
	registry *prometheus.Registry
	health   daemon.Health
	stop     context.CancelFunc
	done     chan error
	lags     lags // of an index
}

func (s *service) run(ctx context.Context, run func(context.Context) error) {
	ctx, s.stop = context.WithCancel(ctx)
	s.done = make(chan error, 1)
	go func() { s.done <- run(ctx) }()
}

// ready waits until the service can serve.
func (s *service) ready(ctx context.Context) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for s.health.Ready() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("it ended: %w", err)
		case <-poll.C:
		}
	}
	return nil
}

// metrics adds up each counter and gauge over its labels, and gives those of one label by its value too: name{value}.
func (s *service) metrics() (map[string]float64, error) {
	families, err := s.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	sums := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			sums[f.GetName()] += value
			if len(m.Label) == 1 {
				sums[f.GetName()+"{"+m.Label[0].GetValue()+"}"] += value
			}
		}
	}
	return sums, nil
}

func (s *service) handle(ctx context.Context, name string, _ []byte) (any, error) {
	switch name {
	case "ready":
		return nil, s.ready(ctx)
	case "metrics":
		return s.metrics()
	case "mark":
		s.lags.mark()
		return nil, nil
	case "applied":
		return s.lags.ops(), nil
	case "lags":
		return s.lags.quantiles(), nil
	}
	return nil, unknownCall(name)
}

func (s *service) close() {
	s.stop()
	if err := <-s.done; err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// logger writes what is out of order; a process's log is shown where it fails.
func logger(name string) *slog.Logger {
	return daemon.NewProcess(name, os.Stderr, slog.LevelWarn).Log
}

type ingestConfig struct {
	NATS, Instance string
	Engines        []ingest.Engine
}

func startIngest(ctx context.Context, config []byte) (role, any, error) {
	var cfg ingestConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	s := &service{registry: prometheus.NewRegistry()}
	s.run(ctx, func(ctx context.Context) error {
		return ingest.Run(ctx, ingest.Config{NATS: cfg.NATS, Instance: cfg.Instance, Engines: cfg.Engines,
			Log: logger("ingest"), Metrics: s.registry, Health: &s.health})
	})
	return s, nil, nil
}

type indexConfig struct {
	NATS          string
	Shards, Shard int
}

// startIndex answers with the address of the index's gRPC server.
func startIndex(ctx context.Context, config []byte) (role, any, error) {
	var cfg indexConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	listener, err := daemon.Listen(nil, "")
	if err != nil {
		return nil, nil, err
	}
	s := &service{registry: prometheus.NewRegistry()}
	s.run(ctx, func(ctx context.Context) error {
		return index.Run(ctx, index.Config{NATS: cfg.NATS, Listener: listener, Shards: cfg.Shards, Shard: cfg.Shard,
			Log: logger("index"), Metrics: s.registry, Health: &s.health, Applied: s.lags.add})
	})
	return s, listener.Addr().String(), nil
}
