package router

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
)

// within polls until ok.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestRunAgainstNATS is a router as it runs: the registry, records and reports through a real server, which then goes
// away.
func TestRunAgainstNATS(t *testing.T) {
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	health, registry, logs := &daemon.Health{}, prometheus.NewRegistry(), &logBuffer{}
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			NATS: server.URL(), Instance: "router.one", Listener: listener, Health: health, Metrics: registry,
			Log: slog.New(slog.NewJSONHandler(logs, nil)),
		})
	}()
	within(t, "ready", func() bool { return health.Ready() == nil })
	url := "http://" + listener.Addr().String()

	conn, err := bus.Connect(t.Context(), server.URL(), bus.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	engine := &rig{t: t, fleet: &stillFleet{}}
	engine.addEngine("e1", sse(event1, event2, useEvent, doneMark))
	if _, err := fleet.EnsurePool(t.Context(), conn, poolRecord); err != nil {
		t.Fatal(err)
	}
	if err := fleet.PutEngine(t.Context(), conn, engine.fleet.View().Engines["id-e1"]); err != nil {
		t.Fatal(err)
	}
	reports := make(chan report, 100)
	if _, err := conn.Listen(bus.ReportSubject(poolRecord.ID, "*"), func(subject string, data []byte) {
		var r report
		if err := json.Unmarshal(data, &r); err != nil || subject != "report."+poolRecord.ID+".router-one" {
			t.Errorf("report on %s: %v", subject, err)
		}
		reports <- r
	}); err != nil {
		t.Fatal(err)
	}
	ask := func() (int, string) {
		resp, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"model":"`+model+`","prompt":"x","stream":true}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	within(t, "the model known", func() bool { status, _ := ask(); return status == 200 })

	records := make(chan record, 10)
	go conn.Follow(ctx, bus.Requests, []string{"req.*"}, 1, func(m bus.Message) {
		var r record
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Error(err)
		}
		records <- r
	})
	if r := <-records; r.Engine != "id-e1" || r.Router != "router-one" || r.OutputTokens != 2 || r.Pool != poolRecord.ID {
		t.Errorf("record %+v", r)
	}
	within(t, "a report that counts", func() bool { r := <-reports; return r.Finished == 1 && r.OutputTokens == 2 })
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	exposed, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(exposed), `warmpath_router_requests_total{code="200",outcome="ok"} 1`) {
		t.Errorf("metrics:\n%s", exposed)
	}

	server.Stop() // the last view goes on
	if status, body := ask(); status != 200 || body != event1+event2+doneMark {
		t.Errorf("without NATS: %d %s", status, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestRunEndsWhileNATSIsAway(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{NATS: "nats://127.0.0.1:1", Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	}()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := Run(t.Context(), Config{Policy: "best"}); err == nil || !strings.Contains(err.Error(), "best") {
		t.Errorf("unknown policy: %v", err)
	}
}
