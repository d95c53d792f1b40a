package plane

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/process"
	"github.com/warmpath/warmpath/services/index"
	"github.com/warmpath/warmpath/services/ingest"
)

func roles() map[string]process.Starter {
	return map[string]process.Starter{
		"nats": process.StartNATS, "ingest": startIngest, "index": startIndex, "engines": startEngines, "writer": startWriter,
	}
}

// Serve is the body of a process that Run started, in the role of that name: it answers the calls on in until in or ctx
// ends.
func Serve(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	return process.Serve(ctx, roles(), name, in, out)
}

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

func (s *service) Handle(ctx context.Context, name string, _ []byte) (any, error) {
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
	return nil, process.ErrUnknownCall
}

func (s *service) Close() {
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

func startIngest(ctx context.Context, config []byte) (process.Role, any, error) {
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
func startIndex(ctx context.Context, config []byte) (process.Role, any, error) {
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
