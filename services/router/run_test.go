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

// running is a router started by Run, with a NATS server of its own.
type running struct {
	url   string
	nats  *embedded.Server
	conn  *bus.Conn
	stop  func()
	ended chan error
}

func start(t *testing.T) *running {
	t.Helper()
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	health := &daemon.Health{}
	r := &running{url: "http://" + listener.Addr().String(), nats: server, stop: cancel, ended: make(chan error, 1)}
	go func() {
		r.ended <- Run(ctx, Config{
			NATS: server.URL(), Instance: "router.one", Listener: listener, Health: health,
			Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		})
	}()
	within(t, "ready", func() bool { return health.Ready() == nil })
	if r.conn, err = bus.Connect(t.Context(), server.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.conn.Close)
	return r
}

func (r *running) ask(t *testing.T) (int, string) {
	t.Helper()
	resp, err := http.Post(r.url+"/v1/completions", "application/json", strings.NewReader(`{"model":"`+model+`","prompt":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// TestRunAgainstNATS is a router as it runs: the registry, records and reports through a real server, which then goes
// away.
func TestRunAgainstNATS(t *testing.T) {
	r := start(t)
	engine := &rig{t: t, fleet: &stillFleet{}}
	engine.addEngine("e1", sse(event1, event2, useEvent, doneMark))
	if _, err := fleet.EnsurePool(t.Context(), r.conn, poolRecord); err != nil {
		t.Fatal(err)
	}
	if err := fleet.PutEngine(t.Context(), r.conn, engine.fleet.View().Engines["id-e1"]); err != nil {
		t.Fatal(err)
	}
	reports := make(chan report, 100)
	if _, err := r.conn.Listen(bus.ReportSubject(poolRecord.ID, "*"), func(subject string, data []byte) {
		var one report
		if err := json.Unmarshal(data, &one); err != nil || subject != "report."+poolRecord.ID+".router-one" {
			t.Errorf("report on %s: %v", subject, err)
		}
		reports <- one
	}); err != nil {
		t.Fatal(err)
	}
	within(t, "the model known", func() bool { status, _ := r.ask(t); return status == 200 })

	records := make(chan record, 10)
	go r.conn.Follow(t.Context(), bus.Requests, []string{"req.*"}, 1, func(m bus.Message) {
		var one record
		if err := json.Unmarshal(m.Data, &one); err != nil {
			t.Error(err)
		}
		records <- one
	})
	if one := <-records; one.Engine != "id-e1" || one.Router != "router-one" || one.OutputTokens != 2 || one.Pool != poolRecord.ID {
		t.Errorf("record %+v", one)
	}
	within(t, "a report that counts", func() bool { one := <-reports; return one.Finished == 1 && one.OutputTokens == 2 })
	resp, err := http.Get(r.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	exposed, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(exposed), `warmpath_router_requests_total{code="200",outcome="ok"} 1`) {
		t.Errorf("metrics:\n%s", exposed)
	}

	r.nats.Stop() // the last view goes on
	if status, body := r.ask(t); status != 200 || body != event1+event2+doneMark {
		t.Errorf("without NATS: %d %s", status, body)
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

// TestNoRecordIsLostOrDoubledAtTheEnd stops the router behind its last answers, when their records still wait.
func TestNoRecordIsLostOrDoubledAtTheEnd(t *testing.T) {
	const requests = 20
	r := start(t)
	engine := &rig{t: t, fleet: &stillFleet{}}
	engine.addEngine("e1", sse(event1, useEvent, doneMark))
	if _, err := fleet.EnsurePool(t.Context(), r.conn, poolRecord); err != nil {
		t.Fatal(err)
	}
	if err := fleet.PutEngine(t.Context(), r.conn, engine.fleet.View().Engines["id-e1"]); err != nil {
		t.Fatal(err)
	}
	within(t, "the model known", func() bool { status, _ := r.ask(t); return status == 200 })
	for range requests - 1 {
		if status, _ := r.ask(t); status != 200 {
			t.Fatal(status)
		}
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	ids := make(chan string, 2*requests)
	go r.conn.Follow(t.Context(), bus.Requests, []string{"req.*"}, 1, func(m bus.Message) {
		var one record
		if err := json.Unmarshal(m.Data, &one); err != nil {
			t.Error(err)
		}
		ids <- one.ID
	})
	seen := map[string]bool{}
	for len(seen) < requests {
		select {
		case id := <-ids:
			if seen[id] {
				t.Fatalf("%s twice", id)
			}
			seen[id] = true
		case <-time.After(20 * time.Second):
			t.Fatalf("%d records of %d", len(seen), requests)
		}
	}
	if err := r.conn.Append(t.Context(), bus.RequestSubject(poolRecord.ID), []byte(`{"x-request-id":"behind all"}`)); err != nil {
		t.Fatal(err)
	}
	if id := <-ids; id != "behind all" {
		t.Errorf("one more record, of %s", id)
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
