package router

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const model = "org/model-7b"

var poolRecord = fleet.Pool{ID: fleet.PoolID(model), Model: model, BlockSize: 16}

// stillFleet is a fleet that a test changes by hand.
type stillFleet struct {
	mu      sync.Mutex
	view    *fleet.View
	changed chan struct{}
}

func (f *stillFleet) View() *fleet.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

func (f *stillFleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *stillFleet) set(change func(v *fleet.View)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := &fleet.View{Engines: map[string]fleet.Engine{}, Pools: map[string]fleet.Pool{poolRecord.ID: poolRecord}, Draining: map[string]bool{}}
	if f.view != nil {
		for id, e := range f.view.Engines {
			next.Engines[id] = e
		}
		for id := range f.view.Draining {
			next.Draining[id] = true
		}
		next.Members = append(next.Members, f.view.Members...)
	}
	change(next)
	f.view = next
	if f.changed != nil {
		close(f.changed)
	}
	f.changed = make(chan struct{})
}

// mailbox keeps what the router sends to NATS.
type mailbox struct {
	mu      sync.Mutex
	away    bool
	flush   func() // what the router holds back
	records []record
	sent    map[string][]byte
}

var errAway = errors.New("away")

func (m *mailbox) Append(_ context.Context, subject string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return errAway
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || subject != "req."+poolRecord.ID {
		return fmt.Errorf("%s: %w", subject, err)
	}
	m.records = append(m.records, r)
	return nil
}

func (m *mailbox) Send(subject string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sent == nil {
		m.sent = map[string][]byte{}
	}
	m.sent[subject] = data
	return nil
}

func (m *mailbox) last() record {
	m.flush()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records) == 0 {
		return record{}
	}
	return m.records[len(m.records)-1]
}

// stubScorer is a real gRPC server with the answers of a test.
type stubScorer struct {
	scorerv1.UnimplementedScorerServer
	answer atomic.Pointer[func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error)]
	asked  atomic.Int64
}

func (s *stubScorer) Score(_ context.Context, r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
	s.asked.Add(1)
	if f := s.answer.Load(); f != nil {
		return (*f)(r)
	}
	return &scorerv1.ScoreResponse{Unknown: true}, nil
}

func (s *stubScorer) say(f func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error)) {
	s.answer.Store(&f)
}

// rig is a router with what it needs around it, all on loopback.
type rig struct {
	t      testing.TB
	rt     *router
	url    string
	fleet  *stillFleet
	mail   *mailbox
	scorer *stubScorer
	logs   *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) lines(message string) (lines []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for raw := range strings.Lines(l.b.String()) {
		var line map[string]any
		if json.Unmarshal([]byte(raw), &line) == nil && line["msg"] == message {
			lines = append(lines, line)
		}
	}
	return lines
}

func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	g := &rig{t: t, fleet: &stillFleet{}, mail: &mailbox{}, scorer: &stubScorer{}, logs: &logBuffer{}}
	g.fleet.set(func(*fleet.View) {})
	cfg.Log = slog.New(slog.NewJSONHandler(g.logs, nil))
	cfg.Instance = cmp.Or(cfg.Instance, "r1")
	rt, err := newRouter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rt.fleet, rt.bus = g.fleet, g.mail
	g.mail.flush = rt.records.flush
	rt.scorers.Least = time.Minute // a loaded machine must not change what is tested
	g.rt = rt
	server := httptest.NewServer(rt.handler())
	t.Cleanup(func() {
		server.Close()
		rt.scorers.Close()
		rt.hangUp()
	})
	g.url = server.URL
	return g
}

// addScorer starts the stub and makes it a member.
func (g *rig) addScorer() {
	g.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	server := grpc.NewServer()
	scorerv1.RegisterScorerServer(server, g.scorer)
	go server.Serve(listener)
	g.t.Cleanup(server.Stop)
	g.fleet.set(func(v *fleet.View) {
		v.Members = append(v.Members, fleet.Member{Service: "scorer", Instance: "s1", Address: listener.Addr().String(), Ready: true})
	})
}

// addEngine starts an HTTP engine and puts it into the fleet.
func (g *rig) addEngine(name string, handler http.HandlerFunc, change ...func(*fleet.Engine)) *httptest.Server {
	g.t.Helper()
	server := httptest.NewServer(handler)
	g.t.Cleanup(server.Close)
	e := fleet.Engine{
		ID: "id-" + name, Name: name, Pool: poolRecord.ID, URL: server.URL, Role: fleet.Both, Ranks: 1,
		Models: []fleet.Model{{ID: model, MaxModelLen: 4096}}, BlockSize: 16, Blocks: 10_000, Generation: 1, State: fleet.OK,
	}
	for _, f := range change {
		f(&e)
	}
	g.fleet.set(func(v *fleet.View) { v.Engines[e.ID] = e })
	return server
}

func (g *rig) post(path, body string, change ...func(*http.Request)) (*http.Response, string) {
	g.t.Helper()
	r, err := http.NewRequest(http.MethodPost, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for _, f := range change {
		f(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp, string(answer)
}

// within polls until ok.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (g *rig) eventually(what string, ok func() bool) {
	g.t.Helper()
	within(g.t, what, ok)
}

// idle checks that nothing is left in the ledger.
func (g *rig) idle() {
	g.t.Helper()
	p := g.rt.pool(poolRecord.ID)
	empty := func() bool {
		for _, l := range p.Loads() {
			if l != (ledger.Load{}) {
				return false
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.total.inflight == 0 && p.total.queued == 0 && p.total.finished == p.total.arrivals
	}
	g.eventually("an empty ledger", empty)
	p.Sweep(g.fleet.View(), time.Now().Add(time.Hour))
	if size := p.Size(); size != (ledger.Size{}) {
		g.t.Errorf("the ledger still remembers %+v", size)
	}
}

func plain(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

const okAnswer = `{"id":"cmpl-1","choices":[{"text":"x"}],"usage":{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}`
