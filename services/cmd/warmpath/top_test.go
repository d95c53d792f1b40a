package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/cmd/warmpath/internal/explain"
	"github.com/warmpath/warmpath/services/cmd/warmpath/internal/top"
)

const (
	model    = "Qwen/Qwen3-32B"
	patience = 20 * time.Second
)

// installation is a NATS server with what the services of a small fleet would have put there.
type installation struct {
	*testing.T
	url  string
	conn *bus.Conn
	pool string
}

func install(t *testing.T) *installation {
	t.Helper()
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	in := &installation{T: t, url: server.URL(), pool: fleet.PoolID(model)}
	if in.conn, err = bus.Connect(t.Context(), in.url, bus.Options{Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.conn.Close)
	in.must(in.conn.Ensure(t.Context(), bus.Sizes{}))
	_, err = fleet.EnsurePool(t.Context(), in.conn, fleet.Pool{ID: in.pool, Model: model, BlockSize: 16})
	in.must(err)
	for i, role := range []fleet.Role{fleet.Prefill, fleet.Decode, fleet.Decode} {
		in.must(fleet.PutEngine(t.Context(), in.conn, fleet.Engine{
			ID: fmt.Sprint("e", i), Name: fmt.Sprint("engine-", i), Pool: in.pool, Role: role, State: fleet.OK, Blocks: 1000, BlockSize: 16,
			Models: []fleet.Model{{ID: model}, {ID: "sql", Parent: model}},
		}))
	}
	in.must(fleet.Drain(t.Context(), in.conn, in.pool, "e2", fleet.DrainRecord{Reason: "test"}))
	go func() {
		_ = fleet.Announce(t.Context(), in.conn, func() fleet.Member { return fleet.Member{Service: "router", Instance: "r0", Ready: true} })
	}()
	return in
}

func (in *installation) must(err error) {
	in.Helper()
	if err != nil {
		in.Fatal(err)
	}
}

// report sends what a router with 20 arrivals a second says, ten times as often as a real one, until the test ends.
func (in *installation) report() {
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for begun := time.Now(); ; {
			select {
			case <-in.Context().Done():
				return
			case now := <-tick.C:
				n := int(20 * now.Sub(begun).Seconds())
				_ = in.conn.Send(bus.ReportSubject(in.pool, "r0"), fmt.Appendf(nil, `{"router":"r0","started":%d,"seq":%d,"pool":%q,
					"arrivals":%d,"prompt_tokens":%d,"uncached_tokens":%d,"output_tokens":%d,"queued":4,"held":1,"inflight":6,
					"engines":{"e1":{"inflight":6,"decoding":5,"context_tokens":8000}}}`,
					begun.Unix(), n+1, in.pool, n, 1000*n, 400*n, 50*n))
			}
		}
	}()
}

// decide logs a decision of n decode replicas, and one of a pool that nobody asks for.
func (in *installation) decide(at time.Time, n int, realised *decide.Realised) {
	in.Helper()
	r := autoscaler.Record{Version: autoscaler.RecordVersion, Pool: in.pool, Decision: decide.Decision{
		At: at, Mode: decide.On, Ages: decide.Ages{Routers: .5, Engines: 1.5, Cluster: 2.5},
		Roles: map[decide.Role]decide.RoleDecision{
			decide.Prefill: {Now: 1, Need: 1, Target: 1, Rule: "floor"},
			decide.Decode: {
				Now: n - 1, Need: n, Target: n, Rule: fmt.Sprint("rule-", n), Blocked: []string{"why not"}, Realised: realised,
				Candidates: []decide.Candidate{{Rule: "occupancy", N: n}, {Rule: "idle", N: 0}},
				Model:      decide.Learned{Sequences: 10, Startup: 60},
				Predicted:  []decide.Prediction{{N: n - 1, Violations: .25}, {N: n, Violations: .01}, {N: n + 1, Violations: .001}},
			},
		},
	}}
	other := r
	other.Pool = "other"
	data, err := json.Marshal(other)
	in.must(err)
	in.must(in.conn.Append(in.Context(), bus.ScaleSubject(other.Pool), data))
	data, err = json.Marshal(r)
	in.must(err)
	before, err := in.conn.StreamState(in.Context(), bus.Requests)
	in.must(err)
	in.must(in.conn.Append(in.Context(), bus.ScaleSubject(in.pool), data))
	for end := time.Now().Add(patience); ; {
		state, err := in.conn.StreamState(in.Context(), bus.Requests)
		in.must(err)
		if state.Last%2 == 0 && state.Last > before.Last {
			return
		}
		if time.Now().After(end) {
			in.Fatal("the decision is not stored")
		}
	}
}

func TestTopOnceSaysWhatIsInNATS(t *testing.T) {
	in := install(t)
	in.report()
	now := time.Now().UTC().Truncate(time.Second)
	in.decide(now.Add(-10*time.Minute), 2, nil)
	in.decide(now.Add(-time.Minute), 3, nil)
	var out bytes.Buffer
	f := topFlags{url: in.url, pool: model, asJSON: true, once: true}
	in.must(f.runOnce(t.Context(), &out))
	var p top.Picture
	in.must(json.Unmarshal(out.Bytes(), &p))
	if bytes.Count(out.Bytes(), []byte("\n")) != 1 || p.Version != top.Version || !p.NATS.Up || len(p.Pools) != 1 {
		t.Fatalf("%s", out.Bytes())
	}
	if s := p.Services[0]; s.Name != "router" || s.Ready != 1 || p.Services[2].Uncovered != fleet.Buckets {
		t.Errorf("services %+v", p.Services)
	}
	pool := p.Pools[0]
	if r := pool.Rates; r.Arrivals < 10 || r.Arrivals > 40 || *r.Hit < .59 || *r.Hit > .61 {
		t.Errorf("rates %+v, hit ratio %v", r, *r.Hit)
	}
	if pool.Gauges.Queued != 4 || *pool.Gauges.Held != 1 || pool.Gauges.Inflight != 6 {
		t.Errorf("gauges %+v", pool.Gauges)
	}
	if e := pool.Engines[1]; e.Name != "engine-1" || *e.Decoding != 5 || *e.KV != .5 || *e.Load != .5 || !pool.Engines[2].Draining {
		t.Errorf("engines %+v", pool.Engines)
	}
	if r := pool.Roles[1]; r.Role != decide.Decode || r.Serving != 1 || r.Draining != 1 || *r.Starting != 1 || r.Decision.Target != 3 || r.Decision.Rule != "rule-3" {
		t.Errorf("roles %+v", pool.Roles)
	}
	if c := pool.Decisions; len(c) != 1 || c[0].From != 2 || c[0].To != 3 || len(pool.History) != 2 {
		t.Errorf("decisions %+v, history %+v", c, pool.History)
	}
	out.Reset()
	f.asJSON = false
	in.must(f.runOnce(t.Context(), &out))
	for _, want := range []string{"engine-0", "draining", "rule-3", "decode  ↑ 2 → 3", "blocked: why not"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	f.pool = "nobody"
	if err := f.runOnce(t.Context(), &out); err == nil {
		t.Error("a pool that is not there is shown")
	}
}

// Objects come each second, and go on, saying so, when NATS goes away.
func TestTopStreams(t *testing.T) {
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := make(map[string]bool)
	top.Follow(ctx, server.URL(), func(p *top.Picture) {
		seen[p.NATS.Why] = true
		switch {
		case p.NATS.Why == "nothing of Warmpath is there yet" && !seen["made"]:
			seen["made"] = true
			conn, err := bus.Connect(ctx, server.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				err = conn.Ensure(ctx, bus.Sizes{})
			}
			if err != nil {
				t.Error(err)
			}
			conn.Close()
		case p.NATS.Up:
			server.Stop()
		case p.NATS.Why == "the connection is lost":
			if p.At.IsZero() || p.NATS.Away <= 0 {
				t.Errorf("%+v at %v", p.NATS, p.At)
			}
			cancel()
		}
	})
	for _, want := range []string{"connecting", "nothing of Warmpath is there yet", "made", "", "the connection is lost"} {
		if !seen[want] {
			t.Errorf("never seen: %q; seen %v", want, seen)
		}
	}
}

func TestTopSaysThatNATSIsNotThere(t *testing.T) {
	f := topFlags{url: "nats://127.0.0.1:1", asJSON: true}
	ctx, cancel := context.WithCancel(t.Context())
	var out firstLine
	out.cancel = cancel
	if err := f.stream(ctx, &out); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var p top.Picture
	if err := json.Unmarshal(out.Bytes(), &p); err != nil || p.NATS.Up || p.NATS.URL != f.url || p.Pools == nil {
		t.Errorf("%s, %v", out.Bytes(), err)
	}
}

// firstLine ends what writes to it.
type firstLine struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (w *firstLine) Write(p []byte) (int, error) {
	w.cancel()
	return w.Buffer.Write(p)
}

func TestExplainFindsThePast(t *testing.T) {
	in := install(t)
	now := time.Now().UTC().Truncate(time.Second)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	said := func(name string, role decide.Role, at time.Time) string {
		t.Helper()
		var out strings.Builder
		in.must(explainScale(t.Context(), &out, in.url, name, role, at))
		return out.String()
	}
	if err := explainScale(t.Context(), new(strings.Builder), in.url, model, "", now); !errors.Is(err, explain.ErrNoDecision) {
		t.Errorf("without a decision: %v", err)
	}
	in.decide(ago(30), 2, nil)
	in.decide(ago(20), 3, nil)
	in.decide(ago(19), 4, &decide.Realised{At: ago(20).Add(-5 * time.Second), Forecast: 1.25, Came: 2.5})
	in.decide(ago(18), 5, &decide.Realised{At: ago(20).Add(time.Second), Forecast: 1.75, Came: 3.5})
	for _, c := range []struct {
		name string
		role decide.Role
		at   time.Time
		has  []string
		not  []string
	}{
		{in.pool, "", ago(30), []string{"rule-2", "floor", "It held until " + ago(20).Format(time.RFC3339)}, []string{"rule-3"}},
		{model, "", ago(21), []string{"rule-2", "decided 9m0s before"}, []string{"rule-3"}},
		{"sql", decide.Decode, ago(20).Add(10 * time.Second), []string{"rule-3", "why not", "1.75 busy replicas that it foresaw 3.50 came", `"idle" asks for 0`, "1.0 % with 3", "heard 0.5 s ago"}, []string{"floor", "rule-4"}},
		{model, "", now, []string{"rule-5", "Nothing was decided for 18m", "is not logged", "reaches back to " + ago(30).Format(time.RFC3339)}, nil},
	} {
		got := said(c.name, c.role, c.at)
		for _, want := range c.has {
			if !strings.Contains(got, want) {
				t.Errorf("%s at %s: no %q in\n%s", c.name, c.at, want, got)
			}
		}
		for _, bad := range c.not {
			if strings.Contains(got, bad) {
				t.Errorf("%s at %s: %q in\n%s", c.name, c.at, bad, got)
			}
		}
	}
	// A search that begins after all that was logged goes back until it finds something.
	if f, err := explain.At(t.Context(), in.conn, in.pool, now.Add(10*time.Minute)); err != nil || f.Roles[decide.Decode].Rule != "rule-5" {
		t.Errorf("rule %s, %v", f.Roles[decide.Decode].Rule, err)
	}
	for name, err := range map[string]error{
		"too early": explainScale(t.Context(), new(strings.Builder), in.url, model, "", ago(31)),
		"no pool":   explainScale(t.Context(), new(strings.Builder), in.url, "nobody", "", now),
		"no role":   explainScale(t.Context(), new(strings.Builder), in.url, model, decide.Both, now),
	} {
		if err == nil || name == "too early" && (!errors.Is(err, explain.ErrTooEarly) || !strings.Contains(err.Error(), ago(30).Format("15:04"))) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
