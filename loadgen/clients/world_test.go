package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
	"github.com/warmpath/warmpath/services/ingest"
)

const deadline = 30 * time.Second

// world is the running system, and what a script can learn of it beside the API: what reached the engines, and
// whether the router has freed what it had booked.
type world struct {
	t         *testing.T
	fronts    map[string]*front
	engines   []*enginesim.Engine
	process   *daemon.Process
	router    string // URL
	backstage string // URL

	mu      sync.Mutex
	reports map[string]report // by pool; the latest
	changed chan struct{}     // closed at the next report
}

// report is what a router says of a pool each second, as far as it says that nothing is left.
type report struct {
	Arrivals int64 `json:"arrivals"`
	Finished int64 `json:"finished"`
	Inflight int64 `json:"inflight"`
	Queued   int64 `json:"queued"`
	Engines  map[string]struct {
		Inflight       int `json:"inflight"`
		UncachedTokens int `json:"uncached_tokens"`
	} `json:"engines"`
	count int // of reports of the pool
}

func (r report) free() bool {
	for _, e := range r.Engines {
		if e.Inflight != 0 || e.UncachedTokens != 0 {
			return false
		}
	}
	return r.Inflight == 0 && r.Queued == 0 && r.Finished == r.Arrivals
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, fronts: map[string]*front{}, reports: map[string]report{}, changed: make(chan struct{})}
	var engines []ingest.Engine
	add := func(model string, n int) {
		o := enginesim.Options{
			Model: model, Name: fmt.Sprint(strings.TrimPrefix(model, "clients/"), "-", n), HashSeed: "0", MaxModelLen: 4096,
			Events: "tcp://127.0.0.1:0", Replay: "tcp://127.0.0.1:0",
		}
		engine, server := w.fronts[model].open(t, o)
		w.engines = append(w.engines, engine)
		engines = append(engines, ingest.Engine{URL: server.URL, Events: engine.Events(), Replay: engine.Replay(), Ranks: 1})
	}
	w.fronts[chat] = &front{}
	add(chat, 0)
	add(chat, 1)
	for model, f := range faults() {
		w.fronts[model] = f
		add(model, 0)
	}
	w.boot(engines)
	server := httptest.NewServer(w.handler())
	t.Cleanup(server.Close)
	w.backstage = server.URL
	return w
}

func (w *world) boot(engines []ingest.Engine) {
	w.t.Helper()
	ready := make(chan up.Addresses, 1)
	w.process = daemon.NewProcess("clients", testWriter{w.t}, slog.LevelError)
	cfg := up.Config{
		Engines: engines, Listen: "127.0.0.1:0", DataDir: w.t.TempDir(), Seed: 7,
		Keys: writeKeys(w.t), Process: w.process, Ready: func(a up.Addresses) { ready <- a },
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- up.Run(ctx, cfg) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("drain: %v", err)
		}
	})
	var address up.Addresses
	select {
	case address = <-ready:
	case err := <-ended:
		ended <- nil
		w.t.Fatalf("services ended: %v", err)
	case <-time.After(deadline):
		w.t.Fatalf("not ready: %v", cfg.Process.Health.Ready())
	}
	w.router = address.Router
	conn, err := bus.Connect(w.t.Context(), address.NATS, bus.Options{Name: "clients"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(conn.Close)
	if _, err := conn.Listen(bus.ReportSubject("*", "*"), w.hear); err != nil {
		w.t.Fatal(err)
	}
}

// writeKeys makes the file of keys that the scripts use: one without bounds, one that may ask twice a minute, one that was.
func writeKeys(t *testing.T) (path string) {
	t.Helper()
	data, err := json.Marshal(map[string][]fleet.APIKey{"keys": {
		{Hash: fleet.KeyHash("sk-tenant-secret"), Tenant: "tenant"},
		{Hash: fleet.KeyHash("sk-few"), Tenant: "few", RequestsPerMinute: 2},
		{Hash: fleet.KeyHash("sk-old"), Tenant: "old", Expires: time.Unix(1, 0)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hear keeps a report.
func (w *world) hear(subject string, data []byte) {
	pool := strings.Split(subject, ".")[1]
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		w.t.Errorf("report %s: %v", subject, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.count = w.reports[pool].count + 1
	w.reports[pool] = r
	close(w.changed)
	w.changed = make(chan struct{})
}

// free waits until nothing of a model's requests is left: none at an engine, none in a report that was made after it
// was asked.
func (w *world) free(ctx context.Context, model string) error {
	pool, first := fleet.PoolID(model), 0
	for {
		w.mu.Lock()
		r, changed := w.reports[pool], w.changed
		w.mu.Unlock()
		if first == 0 {
			first = r.count + 1
		}
		if r.count > first && r.free() && w.fronts[model].now() == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %d requests at its engine, the router reports %+v", model, w.fronts[model].now(), r)
		}
	}
}

// arrived waits until n requests are at a model's engines.
func (w *world) arrived(ctx context.Context, model string, n int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for w.fronts[model].now() != n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %d requests at its engine, not %d", model, w.fronts[model].now(), n)
		}
	}
	return nil
}

// rendered returns how many prompts were scored with tokens that an engine rendered for that.
func (w *world) rendered() (n float64) {
	w.t.Helper()
	families, err := w.process.Registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		for _, sample := range family.GetMetric() {
			for _, label := range sample.GetLabel() {
				if family.GetName() == "warmpath_scorer_scores_total" && label.GetValue() == "render" {
					n += sample.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// handler is what the scripts ask beside the API: GET /seen, /arrived and /free, each with ?model=.
func (w *world) handler() http.Handler {
	mux := http.NewServeMux()
	wait := func(path string, until func(context.Context, string) error) {
		mux.HandleFunc("GET "+path, func(out http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), deadline)
			defer cancel()
			if err := until(ctx, r.FormValue("model")); err != nil {
				http.Error(out, err.Error(), http.StatusConflict)
			}
		})
	}
	wait("/free", w.free)
	wait("/arrived", func(ctx context.Context, model string) error { return w.arrived(ctx, model, 1) })
	mux.HandleFunc("GET /seen", func(out http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(out).Encode(w.fronts[r.FormValue("model")].take())
	})
	return mux
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
