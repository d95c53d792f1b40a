package autoscaler

import (
	"context"
	"encoding/json"
	"errors"
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

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/replica"
)

const patience = 20 * time.Second

// world is NATS and a fleet in it.
type world struct {
	*testing.T
	nats    *embedded.Server
	conn    *bus.Conn
	watcher *fleet.Watcher
}

func newWorld(t *testing.T) *world {
	t.Helper()
	nats, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Stop)
	conn, err := bus.Connect(t.Context(), nats.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	watcher, err := fleet.Meet(t.Context(), conn, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.EnsurePool(t.Context(), conn, fleet.Pool{ID: "p", Model: "m", BlockSize: 16}); err != nil {
		t.Fatal(err)
	}
	return &world{t, nats, conn, watcher}
}

func (w *world) engine(id string, role fleet.Role, state fleet.State) {
	w.Helper()
	e := fleet.Engine{ID: id, Name: id, Pool: "p", URL: "http://127.0.0.1:1/" + id, Role: role, Ranks: 1, State: state, Models: []fleet.Model{{ID: "m"}}}
	if err := fleet.PutEngine(w.Context(), w.conn, e); err != nil {
		w.Fatal(err)
	}
	w.until(id, func(v *fleet.View) bool { return v.Engines[id].State == state && v.Pools["p"].ID != "" })
}

// until waits for a view of which ok is true.
func (w *world) until(what string, ok func(*fleet.View) bool) *fleet.View {
	w.Helper()
	timeout := time.After(patience)
	for {
		changed, v := w.watcher.Changed(), w.watcher.View()
		if ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-timeout:
			w.Fatalf("never seen: %s; drains are %+v", what, v.Drains)
		}
	}
}

func (w *world) marked(id, reason string) {
	w.Helper()
	w.until(fmt.Sprintf("%s marked %q", id, reason), func(v *fleet.View) bool { return v.Drains[id].Reason == reason })
}

// hands is a Fleet that a test moves.
type hands struct {
	mu     sync.Mutex
	pools  map[string]Managed
	orders []Order
	kept   map[string]int
	err    error
}

func (h *hands) Pools() map[string]Managed {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pools
}

func (h *hands) Scale(_ context.Context, o Order) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.orders = append(h.orders, o)
	return h.err
}

func (h *hands) Keep(_ context.Context, pool string, _ []byte, _ decide.Decision) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept == nil {
		h.kept = make(map[string]int)
	}
	h.kept[pool]++
	return nil
}

// still is a scaler that only does what it is told to.
func (w *world) still(h *hands) (*scaler, *pool) {
	w.Helper()
	cfg := Config{NATS: w.nats.URL(), Fleet: h, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	if err := cfg.complete(); err != nil {
		w.Fatal(err)
	}
	s := newScaler(cfg, w.conn, w.watcher)
	for id, m := range h.Pools() {
		s.pool(id, &m).acts = true
	}
	return s, s.pools["p"]
}

func on() map[string]Managed {
	return map[string]Managed{"p": {Policy: decide.Policy{Mode: decide.On}, Replicas: map[decide.Role]decide.Replicas{decide.Decode: {Read: time.Now(), Desired: 2, Ready: 2}}}}
}

var rule = decide.Decision{Roles: map[decide.Role]decide.RoleDecision{decide.Decode: {Target: 1, Rule: "because"}}}

func TestAnEngineIsDrainedThenGoesAndItsMarkWithIt(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	w.engine("e2", fleet.Decode, fleet.OK)
	h := &hands{pools: on()}
	s, p := w.still(h)
	act := func(steps ...decide.Step) int {
		return s.act(t.Context(), "p", p, &rule, steps)
	}
	drain := decide.Step{Do: decide.Drain, Role: decide.Decode, Engine: "e1"}
	if n := act(drain); n != 1 {
		t.Fatalf("%d steps done", n)
	}
	w.marked("e1", replica.ReasonDrains)
	since := w.watcher.View().Drains["e1"].Since
	act(drain) // what is so is not done again
	act(decide.Step{Do: decide.Undrain, Role: decide.Decode, Engine: "e2"})
	if got := w.watcher.View().Drains["e1"].Since; !got.Equal(since) {
		t.Error("the mark was renewed")
	}

	// Somebody else was quicker: the engine only drains again.
	scale := decide.Step{Do: decide.Scale, Role: decide.Decode, From: 2, To: 1, Victims: []string{"e1"}}
	h.err = fmt.Errorf("scale: %w", ErrConflict)
	if n := act(scale, decide.Step{Do: decide.Drain, Role: decide.Decode, Engine: "e2"}); n != 0 {
		t.Fatalf("%d steps done after a conflict", n)
	}
	w.until("a mark that was renewed", func(v *fleet.View) bool {
		return v.Drains["e1"].Since.After(since) && v.Drains["e1"].Reason == replica.ReasonDrains && !v.Draining["e2"]
	})
	h.err = nil
	if n := act(scale); n != 1 {
		t.Fatal("not scaled")
	}
	w.marked("e1", replica.ReasonLeaves)
	want := Order{Pool: "p", Role: decide.Decode, From: 2, To: 1, Victims: []string{"e1"}, Why: "because"}
	if got := h.orders[1]; fmt.Sprint(got) != fmt.Sprint(want) || len(h.orders) != 2 {
		t.Errorf("orders %+v, want %+v", h.orders, want)
	}
	// It is called back no more, and the mark goes when it is gone for good.
	act(drain)
	s.takeBack(t.Context(), w.watcher.View(), time.Now())
	w.engine("e1", fleet.Decode, fleet.Gone)
	s.takeBack(t.Context(), w.watcher.View(), time.Now())
	if r := w.watcher.View().Drains["e1"].Reason; r != replica.ReasonLeaves {
		t.Errorf("the mark is %q", r)
	}
	s.takeBack(t.Context(), w.watcher.View(), time.Now().Add(markLinger))
	w.until("no mark", func(v *fleet.View) bool { return len(v.Drains) == 0 })
}

func TestAnOperatorsMarkIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	if err := fleet.Drain(t.Context(), w.conn, "p", "e1", fleet.DrainRecord{Reason: "maintenance"}); err != nil {
		t.Fatal(err)
	}
	w.marked("e1", "maintenance")
	s, p := w.still(&hands{pools: on()})
	for _, do := range []decide.Do{decide.Undrain, decide.Drain} {
		if n := s.act(t.Context(), "p", p, &rule, []decide.Step{{Do: do, Role: decide.Decode, Engine: "e1"}}); n != 0 {
			t.Errorf("%s was done", do)
		}
	}
	s.takeBack(t.Context(), w.watcher.View(), time.Now().Add(time.Hour))
	if r := w.watcher.View().Drains["e1"].Reason; r != "maintenance" {
		t.Errorf("the mark is %q", r)
	}
}

func TestMarksOfAnEarlierLifeAreTakenBack(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	mark := func(reason string) *fleet.View {
		if err := fleet.Drain(t.Context(), w.conn, "p", "e1", fleet.DrainRecord{Since: time.Now(), Reason: reason}); err != nil {
			t.Fatal(err)
		}
		w.marked("e1", reason)
		return w.watcher.View()
	}
	s, p := w.still(&hands{pools: on()})
	s.takeBack(t.Context(), mark(replica.ReasonDrains), time.Now().Add(time.Hour))
	if !w.watcher.View().Draining["e1"] {
		t.Fatal("where it is wanted, a mark stays")
	}
	for _, mode := range []decide.Mode{decide.UpOnly, decide.Shadow, decide.Off, ""} {
		p.managed.Policy.Mode = mode
		s.takeBack(t.Context(), mark(replica.ReasonDrains), time.Now())
		w.until("no mark in mode "+string(mode), func(v *fleet.View) bool { return len(v.Drains) == 0 })
	}
	p.managed.Policy.Mode = decide.On
	v := mark(replica.ReasonLeaves)
	s.takeBack(t.Context(), v, time.Now())
	if !w.watcher.View().Draining["e1"] {
		t.Fatal("an engine that is to go is called back")
	}
	s.takeBack(t.Context(), v, time.Now().Add(replica.LeavesFor+time.Second))
	w.until("the mark of one that did not go taken back", func(v *fleet.View) bool { return len(v.Drains) == 0 })
}

// What is decided is logged in the stream and shown to who asks, and kept at the end.
func TestDecisionsAreLogged(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	h := &hands{pools: on()}
	mux := http.NewServeMux()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	registry := prometheus.NewRegistry()
	go func() {
		ended <- Run(ctx, Config{NATS: w.nats.URL(), Fleet: h, Tick: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Metrics: registry, Pages: mux})
	}()
	records := make(chan Record, 1)
	go func() {
		_ = w.conn.Follow(t.Context(), bus.Requests, []string{bus.AllScales}, 1, func(m bus.Message) {
			var r Record
			if err := json.Unmarshal(m.Data, &r); err == nil && m.Subject == bus.ScaleSubject("p") {
				select {
				case records <- r:
				default:
				}
			}
		})
	}()
	select {
	case r := <-records:
		if r.Version != 1 || r.Pool != "p" || r.Mode != decide.On || r.Blind == "" && len(r.Roles) == 0 || time.Since(r.At) > time.Minute {
			t.Errorf("record %+v", r)
		}
	case <-time.After(patience):
		t.Fatal("no record")
	}
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/decisions", nil))
	var all []Record
	if err := json.Unmarshal(answer.Body.Bytes(), &all); err != nil || len(all) == 0 || all[0].Pool != "p" {
		t.Errorf("%v: %s", err, answer.Body)
	}
	shown := func() map[string]bool {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, f := range families {
			names[f.GetName()] = true
		}
		return names
	}
	names := []string{"warmpath_autoscaler_desired_replicas", "warmpath_autoscaler_replicas", "warmpath_autoscaler_held"}
	during := shown()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if h.kept["p"] != 1 {
		t.Errorf("kept %v", h.kept)
	}
	after := shown()
	for _, name := range names {
		if !during[name] {
			t.Errorf("no %s among %v", name, during)
		}
		if after[name] { // another may decide now: what this one wanted last must not stand beside it
			t.Errorf("%s is shown by who decides no more", name)
		}
	}
}

func TestOnlyAChangeIsWorthARecord(t *testing.T) {
	d := func() *decide.Decision {
		return &decide.Decision{At: time.Now(), Mode: decide.On, Roles: map[decide.Role]decide.RoleDecision{
			decide.Decode: {Now: 2, Need: 3, Target: 2, Rule: "flow", Blocked: []string{"down: starting"}, Demand: decide.Demand{Busy: 1}},
		}}
	}
	for name, change := range map[string]func(*decide.Decision, *decide.RoleDecision){
		"mode":    func(d *decide.Decision, _ *decide.RoleDecision) { d.Mode = decide.Shadow },
		"blind":   func(d *decide.Decision, _ *decide.RoleDecision) { d.Blind = "routers" },
		"role":    func(d *decide.Decision, _ *decide.RoleDecision) { d.Roles[decide.Prefill] = decide.RoleDecision{} },
		"now":     func(_ *decide.Decision, r *decide.RoleDecision) { r.Now++ },
		"target":  func(_ *decide.Decision, r *decide.RoleDecision) { r.Target++ },
		"rule":    func(_ *decide.Decision, r *decide.RoleDecision) { r.Rule = "min" },
		"short":   func(_ *decide.Decision, r *decide.RoleDecision) { r.Short++ },
		"blocked": func(_ *decide.Decision, r *decide.RoleDecision) { r.Blocked = nil },
	} {
		now := d()
		r := now.Roles[decide.Decode]
		change(now, &r)
		now.Roles[decide.Decode] = r
		if !differs(d(), now) {
			t.Errorf("%s changes, and that is nothing", name)
		}
	}
	same := d()
	r := same.Roles[decide.Decode]
	r.Need, r.Demand.Busy = 9, 8
	same.Roles[decide.Decode] = r
	if differs(d(), same) {
		t.Error("every tick is worth a record")
	}
}

func TestOnlyTheLastDecisionsAreKept(t *testing.T) {
	var l decisions
	for i := range maxDecisions + 10 {
		l.add(fmt.Append(nil, i))
	}
	if len(l.last) != maxDecisions || string(l.last[0]) != "10" {
		t.Errorf("%d are kept from %s on", len(l.last), l.last[0])
	}
}

const policyText = `apiVersion: warmpath.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: small}
spec:
  pool: p
  mode: "on"
  roles: {decode: {min: 2}}
`

// Without anybody who starts engines a policy is shown: nothing is acted on, and what was learned is kept in a file.
func TestPoliciesOfAFileAreShown(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policies.yaml")
	if err := os.WriteFile(file, []byte(policyText), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := readPolicies(file, dir)
	if err != nil || f.Pools()["p"].Policy.Bounds[decide.Decode].Min != 2 || f.Pools()["p"].State != nil {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := f.Scale(t.Context(), Order{}); !errors.Is(err, errNobodyActs) {
		t.Errorf("scaling says %v", err)
	}
	for _, pool := range []string{"p", "q", "../../escape"} {
		if err := f.Keep(t.Context(), pool, []byte(`{"policy":{}}`), decide.Decision{}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	again, err := readPolicies(file, dir)
	if err != nil || string(again.Pools()["p"].State) != `{"policy":{}}` {
		t.Errorf("%+v, %v", again, err)
	}
	for _, bad := range []string{"spec: [", strings.Replace(policyText, "min: 2", "min: -2", 1)} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPolicies(file, ""); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("a bad file says %v", err)
		}
	}
	if err := Run(t.Context(), Config{Policies: filepath.Join(dir, "absent")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file says %v", err)
	}
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	s, p := w.still(&hands{pools: on()})
	p.acts = false
	r := p.replicas(w.watcher.View(), "p", time.Now())[decide.Decode]
	if r.Desired != 1 || s.act(t.Context(), "p", p, &rule, []decide.Step{{Do: decide.Drain, Engine: "e1"}}) != 0 {
		t.Errorf("replicas %+v, or a step that nobody may take", r)
	}
}
