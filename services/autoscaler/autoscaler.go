// Package autoscaler keeps just enough engines of each role running to meet the objectives of a pool.
//
// It observes what routers report, what they recorded of requests, what engines say of themselves and what runs; has
// package decide decide; and acts through a Fleet and the marks in KV drain. A pool that no Fleet manages it only watches:
// it shows what it would do. What it has not heard it does not take for zero.
package autoscaler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/observe"
)

const (
	service     = "autoscaler"
	tickEvery   = 5 * time.Second
	scrapeEvery = 5 * time.Second
)

// Config of Run. NATS is required; the rest has usable zero values.
type Config struct {
	NATS      string        // URL
	Instance  string        // name on the connection; "" is the host's name with a random suffix
	Fleet     Fleet         // starts and stops engines; nil: Kubernetes where it is set, else nobody, and decisions are only shown
	Policies  string        // file of ScalingPolicies, where there is neither
	StateDir  string        // folder in which the states of these pools are kept; "" is nowhere
	Policy    decide.Policy // of pools that have none; its Mode is not heeded, as nobody could act
	EngineKey string        // API key of the engines; "" is the environment's VLLM_API_KEY, as for ingest
	Tick      time.Duration // between decisions, by the engines' clock; 0 is 5 s
	Speed     float64       // how many times faster than real time the engines run, if they are simulated; 0 is 1

	Kubernetes bool   // engines are pods, scaled as ScalingPolicies of the cluster say
	Kubeconfig string // file that names the cluster; "" is the one that this process runs in
	Namespace  string // of the lease by which one autoscaler leads; "" is warmpath

	Log     *slog.Logger          // nil is slog.Default()
	Metrics prometheus.Registerer // nil is none
	Health  *daemon.Health        // part "autoscaler" is ready when it hears reports; nil is none
	Pages   *http.ServeMux        // gets GET /decisions; nil is none
}

func (cfg *Config) complete() error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Instance = cmp.Or(cfg.Instance, fleet.NewInstance())
	cfg.EngineKey = cmp.Or(cfg.EngineKey, os.Getenv("VLLM_API_KEY"))
	cfg.Tick = cmp.Or(cfg.Tick, tickEvery)
	if cfg.Speed < 0 || cfg.Speed > 1000 {
		return fmt.Errorf("speed %v is not between 0 and 1000", cfg.Speed)
	}
	switch {
	case cfg.Kubernetes && (cfg.Fleet != nil || cfg.Policies != ""):
		return errors.New("policies are in the cluster or in a file, not in both")
	case cfg.Kubernetes:
		c, err := newCluster(cfg)
		cfg.Fleet = c
		return err
	case cfg.Fleet != nil:
		return nil
	}
	policies, err := readPolicies(cfg.Policies, cfg.StateDir)
	cfg.Fleet = policies
	return err
}

// Run decides and acts until ctx ends, then returns nil.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return fmt.Errorf("configure autoscaler: %w", err)
	}
	if err := run(ctx, cfg); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run autoscaler: %w", err)
	}
	return nil
}

func run(ctx context.Context, cfg Config) error {
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
	s := newScaler(cfg, conn, watcher)
	if cfg.Pages != nil {
		cfg.Pages.Handle("GET /decisions", &s.log)
	}
	cfg.Health.Set(service, "")
	cfg.Log.Info("autoscaler observes", "tick", cfg.Tick, "acts", s.acts())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.observer.Scrapes.Run(ctx, watcher.View) })
	if c, ok := cfg.Fleet.(*cluster); ok {
		group.Go(func() error { return c.Run(ctx) })
		group.Go(func() error { return c.Lead(ctx, s.run) })
	} else {
		group.Go(func() error { return s.run(ctx) })
	}
	return group.Wait()
}

// listen has reports and records come to the observer, on the connection's goroutines.
func (s *scaler) listen() (stop func(), err error) {
	reports, err := s.conn.Listen(bus.ReportSubject("*", "*"), func(_ string, data []byte) {
		outcome, err := s.observer.Report(s.watcher.View(), data, time.Now())
		s.metrics.reports.WithLabelValues(string(outcome)).Inc()
		s.complain("report", err)
	})
	if err != nil {
		return nil, err
	}
	prefix := bus.RequestSubject("")
	records, err := s.conn.Listen(bus.AllRequests, func(subject string, data []byte) {
		outcome, err := s.observer.Record(s.watcher.View(), strings.TrimPrefix(subject, prefix), data)
		s.metrics.records.WithLabelValues(string(outcome)).Inc()
		s.complain("record", err)
	})
	if err != nil {
		reports()
		return nil, err
	}
	return func() { reports(); records() }, nil
}

// complain logs what is malformed once for each kind.
func (s *scaler) complain(kind string, err error) {
	if err == nil {
		return
	}
	if _, before := s.complained.LoadOrStore(kind, true); !before {
		s.cfg.Log.Warn("cannot use what a router sent; more of the kind are only counted", "kind", kind, "err", err)
	}
}

func newScaler(cfg Config, conn *bus.Conn, watcher *fleet.Watcher) *scaler {
	s := &scaler{
		cfg: cfg, conn: conn, watcher: watcher, metrics: newMetrics(cfg.Metrics), clock: observe.Clock{Speed: cfg.Speed},
		pools: make(map[string]*pool),
	}
	speed := cmp.Or(cfg.Speed, 1)
	s.every = time.Duration(float64(cfg.Tick) / speed)
	s.observer.Scrapes = &observe.Scraper{
		Key: cfg.EngineKey, Every: time.Duration(float64(scrapeEvery) / speed), Failed: s.metrics.unscraped.Inc, Log: cfg.Log,
	}
	return s
}
