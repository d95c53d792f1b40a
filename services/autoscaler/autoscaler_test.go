package autoscaler

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// A router's reports on NATS become a decision in the metrics, which is kept when the router goes.
func TestReportsBecomeDesiredReplicas(t *testing.T) {
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 1 << 30})
	must(t, err)
	t.Cleanup(server.Stop)
	quiet := slog.New(slog.DiscardHandler)
	conn, err := bus.Connect(t.Context(), server.URL(), bus.Options{Log: quiet})
	must(t, err)
	t.Cleanup(conn.Close)
	must(t, conn.Ensure(t.Context(), bus.Sizes{}))
	p, err := fleet.EnsurePool(t.Context(), conn, fleet.Pool{ID: fleet.PoolID("m"), Model: "m", BlockSize: 16})
	must(t, err)
	for rank := range 2 {
		must(t, fleet.PutEngine(t.Context(), conn, fleet.Engine{ID: fleet.EngineID("e", "u", rank), Pool: p.ID, Role: fleet.Both, Rank: rank}))
	}
	alive, leave := context.WithCancel(t.Context())
	defer leave()
	go fleet.Announce(alive, conn, func() fleet.Member {
		return fleet.Member{Service: "router", Instance: "r", Ready: true}
	})

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	registry, stopped := prometheus.NewRegistry(), make(chan error, 1)
	var health daemon.Health
	go func() {
		stopped <- Run(ctx, Config{
			NATS: server.URL(), Tick: 10 * time.Millisecond, Log: quiet, Metrics: registry, Health: &health,
			Policy: decide.Policy{Window: 400 * time.Millisecond, Hold: time.Hour, Prefill: 1e6, Decode: 1e6, Headroom: 1},
		})
	}()
	// Nothing is known: what there is, is desired. A replica of two ranks is one.
	eventually(t, func() bool { return gauge(t, registry, "warmpath_autoscaler_desired_replicas") == 1 })
	if gauge(t, registry, "warmpath_autoscaler_held") != 1 || gauge(t, registry, "warmpath_autoscaler_demand_tokens_per_second") != -1 {
		t.Fatal("demand is claimed before a report has come")
	}
	// 3.5 million tokens/s of each kind, or more where reports are delayed.
	begun := time.Now()
	tell := func() bool {
		n := uint64(time.Since(begun).Seconds() * 3.5e6)
		data, err := json.Marshal(report{Router: "r", Started: 1, Pool: p.ID, Uncached: n, Output: n})
		must(t, err)
		must(t, conn.Send(bus.ReportSubject(p.ID, "r"), data))
		return gauge(t, registry, "warmpath_autoscaler_desired_replicas") >= 7
	}
	must(t, conn.Send(bus.ReportSubject(p.ID, "r"), []byte("no report")))
	eventually(t, tell)
	if gauge(t, registry, "warmpath_autoscaler_demand_tokens_per_second") < 3e6 {
		t.Fatal("demand is not told")
	}
	leave()
	eventually(t, func() bool { return gauge(t, registry, "warmpath_autoscaler_held") == 1 })
	if got := gauge(t, registry, "warmpath_autoscaler_desired_replicas"); got < 7 {
		t.Fatalf("without a router %v replicas are desired", got)
	}
	must(t, health.Ready())
	stop()
	must(t, <-stopped)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen in 20 s")
		}
	}
}

// gauge returns the greatest value of a metric; -1 when it is absent.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	most := -1.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				most = max(most, m.GetGauge().GetValue())
			}
		}
	}
	return most
}
