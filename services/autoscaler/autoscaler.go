// Package autoscaler turns what the routers report into how many engines each pool and role needs.
//
// It runs in shadow: it scales nothing, and says what it would do in metrics and in the log. Demand comes from the
// routers, engines from the fleet's records; it scrapes nobody, and what it has not heard it does not take for zero.
package autoscaler

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const service = "autoscaler"

// Config of Run. NATS is required; the rest has usable zero values.
type Config struct {
	NATS     string        // URL
	Instance string        // name on the connection; "" is the host's name with a random suffix
	Tick     time.Duration // between decisions; 0 is 5 s
	Policy   decide.Policy // zero is the defaults of package decide

	Log     *slog.Logger          // nil is slog.Default()
	Metrics prometheus.Registerer // nil is none
	Health  *daemon.Health        // part "autoscaler" is ready when it hears reports; nil is none
}

// autoscaler decides for all pools. It belongs to one goroutine.
type autoscaler struct {
	log     *slog.Logger
	metrics *metrics
	policy  decide.Policy
	pools   map[string]*pool
}

type pool struct {
	routers routers
	state   decide.State
	last    decide.Decision
}

// Run decides until ctx ends, then returns nil.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Tick == 0 {
		cfg.Tick = 5 * time.Second
	}
	if cfg.Instance == "" {
		cfg.Instance = fleet.NewInstance()
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
	heard := make(chan report, 1024)
	a := &autoscaler{log: cfg.Log, metrics: newMetrics(cfg.Metrics), policy: cfg.Policy, pools: make(map[string]*pool)}
	stop, err := conn.Listen(bus.ReportSubject("*", "*"), func(_ string, data []byte) { a.hear(data, heard) })
	if err != nil {
		return err
	}
	defer stop()
	cfg.Health.Set(service, "")
	cfg.Log.Info("autoscaler decides in shadow mode", "tick", cfg.Tick)
	tick := time.NewTicker(cfg.Tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-heard:
			a.take(watcher.View(), r, time.Now())
		case now := <-tick.C:
			a.decide(watcher.View(), now)
		}
	}
}

// hear runs on the connection's goroutine and never blocks it.
func (a *autoscaler) hear(data []byte, heard chan<- report) {
	r, err := parse(data)
	if err != nil {
		a.metrics.reports.WithLabelValues("malformed").Inc()
		return
	}
	select {
	case heard <- r:
	default:
		a.metrics.reports.WithLabelValues("late").Inc()
	}
}

// take folds a report of a pool that the fleet knows.
func (a *autoscaler) take(v *fleet.View, r report, now time.Time) {
	if _, ok := v.Pools[r.Pool]; !ok {
		a.metrics.reports.WithLabelValues("malformed").Inc()
		return
	}
	outcome := "taken"
	if !a.pool(r.Pool).routers.fold(r, now) {
		outcome = "too_many"
	}
	a.metrics.reports.WithLabelValues(outcome).Inc()
}

func (a *autoscaler) pool(id string) *pool {
	p := a.pools[id]
	if p == nil {
		p = &pool{state: decide.State{Policy: a.policy}}
		a.pools[id] = p
	}
	return p
}

// decide decides for every pool, and logs decisions that differ from the ones before.
func (a *autoscaler) decide(v *fleet.View, now time.Time) {
	var alive []string
	for _, m := range v.Members {
		if m.Service == "router" {
			alive = append(alive, m.Instance)
		}
	}
	for id := range v.Pools {
		p := a.pool(id)
		o := decide.Observation{Replicas: make(map[decide.Role]decide.Replicas)}
		o.Routers.Uncached, o.Routers.Output, o.Routers.Queued = p.routers.uncached, p.routers.output, int(p.routers.queued())
		if p.routers.blind(alive, now) == "" {
			o.Routers.Heard = now
		}
		for _, e := range v.InPool(id) {
			if e.State != fleet.Gone && e.Rank == 0 { // a replica of several ranks is one
				r := o.Replicas[decide.Role(e.Role)]
				r.Read, r.Desired, r.Ready = now, r.Desired+1, r.Ready+1
				o.Replicas[decide.Role(e.Role)] = r
			}
		}
		var d decide.Decision
		p.state, d = p.state.Decide(o, now)
		a.metrics.decided(id, &p.last, &d)
		for role, r := range d.Roles {
			if r.Target != p.last.Roles[role].Target {
				a.log.Info("desired replicas changed", "pool", id, "role", role, "desired", r.Target, "rule", r.Rule)
			}
		}
		p.last = d
	}
	for id := range a.pools {
		if _, ok := v.Pools[id]; !ok {
			delete(a.pools, id)
			a.metrics.forget(id)
		}
	}
}
