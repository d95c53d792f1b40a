package enginefleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/enginefleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/index"
	"github.com/warmpath/warmpath/services/ingest"
	"github.com/warmpath/warmpath/services/router"
	"github.com/warmpath/warmpath/services/scorer"
)

const (
	model    = "org/scaled-model"
	speed    = 20 // engines run so many times faster than real time
	patience = 90 * time.Second
)

// slow is a machine on which few requests keep an engine busy.
var slow = enginesim.Profile{Name: "slow", Base: 60, Prefill: 2, Decode: 40}

func policy() decide.Policy {
	return decide.Policy{
		Mode: decide.On, TTFT: 4 * time.Second, ITL: 200 * time.Millisecond, Startup: 10 * time.Second,
		Bounds: map[decide.Role]decide.Bounds{decide.Prefill: {Max: 3}, decide.Decode: {Max: 4}},
		Prior:  decide.Model{Overhead: .06, Rate: 400, Step: 70, Sequence: 35, Kilo: .01, KVTokens: 65_536}, // some 20 % wrong
	}
}

// world is the five services and their engines.
type world struct {
	*testing.T
	fleet   *enginefleet.Fleet
	dir     string
	port    int
	nats    *embedded.Server
	url     string
	process *daemon.Process

	scaling   *http.ServeMux // pages of the autoscaler
	stopScale func()
	sent      atomic.Int64
	failures  sync.Map
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir()}
	w.process = daemon.NewProcess("scaled", testWriter{t}, slog.LevelWarn)
	w.startNATS()
	t.Cleanup(func() { w.nats.Stop() })
	var err error
	w.fleet, err = enginefleet.New(t.Context(), enginefleet.Options{
		Engine: enginesim.Options{Model: model, Profile: slow, BlockSize: 16, Blocks: 4096, TimeScale: speed},
		Policy: policy(), Initial: map[decide.Role]int{decide.Prefill: 1, decide.Decode: 1}, Startup: 500 * time.Millisecond, Seed: 1, Log: w.process.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.fleet.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + listener.Addr().String()
	log, health := w.process.Log, w.process.Health
	w.serve("ingest", func(ctx context.Context) error {
		return ingest.Run(ctx, ingest.Config{NATS: w.nats.URL(), Engines: w.fleet.Engines(), Changes: w.fleet.Changes(), Log: log, Health: health})
	})
	w.serve("index", func(ctx context.Context) error {
		return index.Run(ctx, index.Config{NATS: w.nats.URL(), Log: log, Health: health})
	})
	w.serve("scorer", func(ctx context.Context) error {
		return scorer.Run(ctx, scorer.Config{NATS: w.nats.URL(), Log: log, Health: health})
	})
	w.serve("router", func(ctx context.Context) error {
		return router.Run(ctx, router.Config{
			NATS: w.nats.URL(), Listener: listener, Hold: patience, QueueTTL: patience, Report: time.Second / speed, Log: log, Health: health,
			SLO: router.SLO{TTFT: 4 * time.Second / speed, ITL: 200 * time.Millisecond / speed},
		})
	})
	w.scale()
	w.until("readiness", func() bool { return w.process.Health.Ready() == nil && w.ask(context.Background(), 1) == nil })
	return w
}

func (w *world) startNATS() {
	w.Helper()
	s, err := embedded.Start(embedded.Options{Dir: w.dir, Port: w.port, MaxStore: 256 << 20})
	if err != nil {
		w.Fatal(err)
	}
	w.nats = s
	u, err := url.Parse(s.URL())
	if err == nil {
		w.port, err = strconv.Atoi(u.Port())
	}
	if err != nil {
		w.Fatal(err)
	}
}

// serve runs a service until the function that it returns is called, or the test ends.
func (w *world) serve(name string, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("%s: %v", name, err)
		}
	})
	w.Cleanup(stop)
	return stop
}

// scale starts an autoscaler.
func (w *world) scale() {
	pages := http.NewServeMux()
	w.scaling = pages
	w.stopScale = w.serve("autoscaler", func(ctx context.Context) error {
		return autoscaler.Run(ctx, autoscaler.Config{NATS: w.nats.URL(), Fleet: w.fleet, Speed: speed, Log: w.process.Log, Health: w.process.Health, Pages: pages})
	})
}

// decisions are those that the present autoscaler recorded.
func (w *world) decisions() (all []autoscaler.Record) {
	w.Helper()
	answer := httptest.NewRecorder()
	w.scaling.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/decisions", nil))
	if answer.Code == http.StatusNotFound {
		return nil // it is not that far
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &all); err != nil {
		w.Fatalf("%v: %s", err, answer.Body)
	}
	return all
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not in time: %s; engines %+v; last decision\n%s", what, w.fleet.Counts(), w.last())
		}
	}
}

func (w *world) last() string {
	all := w.decisions()
	if len(all) == 0 {
		return "none"
	}
	data, _ := json.MarshalIndent(all[len(all)-1], "", " ")
	return string(data)
}

func (w *world) running(role decide.Role) int { return w.fleet.Counts()[role].Running }

func (w *world) ordered() int {
	return w.fleet.Counts()[decide.Prefill].Ordered + w.fleet.Counts()[decide.Decode].Ordered
}

// ask sends one request of 500 tokens that nobody has cached, and reads its answer to the end.
func (w *world) ask(ctx context.Context, tokens int) error {
	prompt := make([]uint32, 500)
	for i := range prompt {
		prompt[i] = 256 + rand.Uint32N(30_000)
	}
	body, err := json.Marshal(map[string]any{"model": model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": true, "stream": true})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte("[DONE]")) || bytes.Contains(answer, []byte(`"error"`)):
		return fmt.Errorf("status %d: %.300s", resp.StatusCode, answer)
	}
	return nil
}

// load sends so many requests a second, each for so many tokens, until the function that it returns is called, which
// waits for their answers.
func (w *world) load(perSecond float64, tokens int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var flying sync.WaitGroup
	flying.Go(func() {
		tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				flying.Go(func() {
					w.sent.Add(1)
					if err := w.ask(context.Background(), tokens); err != nil {
						w.failures.Store(err.Error(), true)
					}
				})
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); flying.Wait() })
	w.Cleanup(stop)
	return stop
}

// nothingLost says that no request failed and none was under way on an engine that was stopped.
func (w *world) nothingLost() {
	w.Helper()
	w.failures.Range(func(why, _ any) bool {
		w.Errorf("a request failed: %s", why)
		return true
	})
	if n := w.fleet.Lost(); n > 0 {
		w.Errorf("%d requests were under way on engines that were stopped", n)
	}
}

// testWriter passes a process's log to the test.
type testWriter struct{ *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}
