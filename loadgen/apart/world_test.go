package apart

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
	"github.com/warmpath/warmpath/services/ingest"
)

const (
	model  = "apart/model-7b"
	blocks = 2000
	whole  = 10 * time.Hour // a lease that does not end in a test
)

// profile is fast, and slow enough that a client can leave in each phase.
var profile = enginesim.Profile{Name: "apart", Base: 1, Prefill: .01, Decode: .05}

// world is the running system.
type world struct {
	t       *testing.T
	engines map[string]*enginesim.Engine
	address up.Addresses
	client  http.Client
}

// member is one engine of a world.
type member struct {
	name string
	role fleet.Role
	enginesim.Options
}

// newWorld starts engines and all services, and waits until they are ready.
func newWorld(t *testing.T, policy string, members ...member) *world {
	t.Helper()
	w := &world{t: t, engines: map[string]*enginesim.Engine{}, client: http.Client{Transport: &http.Transport{}}}
	t.Cleanup(w.client.CloseIdleConnections)
	cfg := up.Config{
		Listen: "127.0.0.1:0", DataDir: t.TempDir(), Policy: policy,
		Process: daemon.NewProcess("apart", io.Discard, slog.LevelWarn),
	}
	for _, m := range members {
		m.Model, m.Name, m.HashSeed, m.Blocks, m.Profile = model, m.name, "0", blocks, profile
		m.Events, m.Replay = "tcp://127.0.0.1:0", "tcp://127.0.0.1:0"
		e, err := enginesim.Start(t.Context(), m.Options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		w.engines[m.name] = e
		cfg.Engines = append(cfg.Engines, ingest.Engine{URL: e.URL(), Name: m.name, Events: e.Events(), Replay: e.Replay(), Role: m.role})
	}
	w.boot(cfg)
	return w
}

func (w *world) boot(cfg up.Config) {
	w.t.Helper()
	ready := make(chan up.Addresses, 1)
	cfg.Ready = func(a up.Addresses) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- up.Run(ctx, cfg) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("drain: %v", err)
		}
	})
	select {
	case w.address = <-ready:
	case err := <-ended:
		ended <- nil
		w.t.Fatalf("services ended: %v", err)
	case <-time.After(30 * time.Second):
		w.t.Fatalf("not ready: %v", cfg.Process.Health.Ready())
	}
}

// reply is what a client reads, streamed or whole.
type reply struct {
	text   string
	cached int // -1 where nobody says
	engine string
}

// ask sends one request and reads its answer.
func (w *world) ask(ctx context.Context, base, path, body string) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return reply{}, fmt.Errorf("status %d: %s", resp.StatusCode, raw)
	}
	a := reply{cached: -1, engine: resp.Header.Get("X-Warmpath-Engine")}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "data: ")
		if line == "" || line == "[DONE]" {
			continue
		}
		if err := a.add(line); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *reply) add(line string) error {
	var chunk struct {
		Choices []struct {
			Text           string
			Message, Delta struct{ Content string }
		}
		Usage *struct {
			Details struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
		Error json.RawMessage
	}
	if err := json.Unmarshal([]byte(line), &chunk); err != nil || chunk.Error != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	for _, c := range chunk.Choices {
		a.text += c.Text + c.Message.Content + c.Delta.Content
	}
	if chunk.Usage != nil {
		a.cached = chunk.Usage.Details.Cached
	}
	return nil
}

// metric is a figure of the router: the sum of all its series that have these labels.
func (w *world) metric(name, labels string) (sum int) {
	w.t.Helper()
	resp, err := http.Get(w.address.Router + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	series := regexp.MustCompile(`(?m)^` + name + `(?:\{([^}]*)\})? (\S+)$`)
	for _, m := range series.FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(m[1], labels) {
			v, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				w.t.Fatal(err)
			}
			sum += int(v)
		}
	}
	return sum
}

func (w *world) splits(outcome string) int {
	return w.metric("warmpath_router_splits_total", `outcome="`+outcome+`"`)
}

// eventually polls until ok.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			for name, e := range w.engines {
				w.t.Logf("%s: %+v", name, e.Stats())
			}
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

// free waits until no engine uses a block and no router has a request in its ledger.
func (w *world) free() {
	w.t.Helper()
	w.eventually("free engines", func() bool {
		for _, e := range w.engines {
			if s := e.Stats(); s.Pinned > 0 || s.Free != s.Blocks || s.Running+s.Waiting > 0 {
				return false
			}
		}
		return true
	})
	w.eventually("an empty ledger", func() bool {
		return w.metric("warmpath_router_inflight_requests", "")+w.metric("warmpath_router_inflight_uncached_tokens", "") == 0
	})
}
