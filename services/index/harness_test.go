package index

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

const (
	patience = 20 * time.Second
	testPool = "pool-01234567"
)

var quiet = slog.New(slog.DiscardHandler)

// world is a NATS server and a connection to it.
type world struct {
	testing.TB
	server *embedded.Server
	dir    string
	port   int
	conn   *bus.Conn
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, bus.Sizes{})
}

func newWorldOf(t testing.TB, sizes bus.Sizes) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir()}
	w.startNATS()
	u, err := url.Parse(w.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	if w.port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.server.Stop() })
	if w.conn, err = bus.Connect(t.Context(), w.server.URL(), bus.Options{Log: quiet}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.conn.Close)
	if err := w.conn.Ensure(t.Context(), sizes); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) startNATS() {
	w.Helper()
	var err error
	if w.server, err = embedded.Start(embedded.Options{Dir: w.dir, Port: w.port, MaxStore: 2 << 30}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) restartNATS(loseStore bool) {
	w.Helper()
	w.server.Stop()
	if loseStore {
		if err := os.RemoveAll(w.dir); err != nil {
			w.Fatal(err)
		}
	}
	w.startNATS()
}

// eventually polls until ok, or fails.
func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("never: %s", what)
		}
	}
}

// engineIn makes the n-th engine id of a bucket.
func engineIn(bucket, n int) string {
	for port := 1; ; port++ {
		id := fleet.EngineIDFromURL("h", port, 0)
		if fleet.Bucket(id) != bucket {
			continue
		}
		if n--; n < 0 {
			return id
		}
	}
}

// owner writes the log of one bucket as ingest does.
type owner struct {
	*world
	name    string
	counter uint64
	bucket  int
	writer  *bus.Writer
}

func (w *world) owner(name string, bucket int) *owner {
	return &owner{world: w, name: name, bucket: bucket, writer: w.conn.Writer(bus.EventSubject(testPool, bucket))}
}

func (o *owner) message(parts ...*eventsv1.Part) []byte {
	o.Helper()
	o.counter++
	data, err := proto.Marshal(&eventsv1.Message{Version: 1, Owner: o.name, Counter: o.counter, Parts: parts})
	if err != nil {
		o.Fatal(err)
	}
	return data
}

// write appends a message with the fence, raw bytes without it.
func (o *owner) write(parts ...*eventsv1.Part) uint64 {
	o.Helper()
	ctx, cancel := context.WithTimeout(o.Context(), patience)
	defer cancel()
	seq, err := o.writer.Publish(ctx, o.message(parts...))
	if err != nil {
		o.Fatal(err)
	}
	return seq
}

func (o *owner) raw(data []byte) uint64 {
	o.Helper()
	seq, err := o.writer.Claim(o.Context(), data)
	if err != nil {
		o.Fatal(err)
	}
	return seq
}

func (o *owner) claim() uint64 {
	o.Helper()
	return o.raw(o.message(&eventsv1.Part{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}}))
}

func resetOf(engine string) *eventsv1.Part {
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{Reason: "test"}}}
}

const (
	shown  = eventsv1.Change_CHANGE_ADDED
	hidden = eventsv1.Change_CHANGE_REMOVED
)

func runOf(gpu, any eventsv1.Change, keys ...uint64) *eventsv1.Run {
	copies := gpu
	if copies == 0 {
		copies = any
	}
	return &eventsv1.Run{Copy: copies, Gpu: gpu, Any: any, Keys: keys}
}

func deltaOf(engine string, runs ...*eventsv1.Run) *eventsv1.Part {
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Delta{Delta: &eventsv1.Delta{Runs: runs, Received: time.Now().UnixNano()}}}
}

func show(engine string, keys ...uint64) *eventsv1.Part {
	return deltaOf(engine, runOf(shown, shown, keys...))
}

func hide(engine string, keys ...uint64) *eventsv1.Part {
	return deltaOf(engine, runOf(hidden, hidden, keys...))
}

// snapshotOf is one part of a snapshot; the last one counts its own keys alone.
func snapshotOf(engine string, generation uint64, part, parts uint32, keys ...uint64) *eventsv1.Part {
	s := &eventsv1.Snapshot{Generation: generation, Part: part, Parts: parts, Runs: []*eventsv1.Run{runOf(shown, shown, keys...)}}
	if part == parts {
		s.Count, s.Digest = sumOf(keys)
	}
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Snapshot{Snapshot: s}}
}

// snapshotsOf are all parts of a snapshot.
func snapshotsOf(engine string, generation uint64, keys ...[]uint64) (parts []*eventsv1.Part) {
	for i := range keys {
		parts = append(parts, snapshotOf(engine, generation, uint32(i+1), uint32(len(keys)), keys[i]...))
	}
	last := parts[len(parts)-1].GetSnapshot()
	last.Count, last.Digest = sumOf(keys...)
	return parts
}

func digestOf(engine string, keys ...uint64) *eventsv1.Part {
	count, digest := sumOf(keys)
	return &eventsv1.Part{Engine: engine, Body: &eventsv1.Part_Digest{Digest: &eventsv1.Digest{Count: count, Digest: digest}}}
}

// sumOf is count and digest of an engine that shows these keys in both sets.
func sumOf(lists ...[]uint64) (count, digest uint64) {
	var sum prefix.Sum
	for _, keys := range lists {
		sum.Add(&prefix.Run{GPU: prefix.Added, Any: prefix.Added, Keys: keys})
	}
	return uint64(sum.Count), sum.Digest
}

// record writes an engine's record.
func (w *world) record(engine string, generation uint64, state fleet.State) {
	w.Helper()
	e := fleet.Engine{ID: engine, Pool: testPool, Generation: generation, State: state}
	if err := fleet.PutEngine(w.Context(), w.conn, e); err != nil {
		w.Fatal(err)
	}
}

// replica is a running index.
type replica struct {
	*world
	indexv1.IndexClient
	health   *daemon.Health
	registry *prometheus.Registry
	stray    chan func(*store)
	stop     func()
}

func (w *world) startIndex(cfg Config) *replica {
	w.Helper()
	r := w.bootIndex(cfg)
	w.eventually("ready", func() bool { return r.health.Ready() == nil })
	return r
}

// bootIndex starts an index and does not wait until it is ready.
func (w *world) bootIndex(cfg Config) *replica {
	w.Helper()
	r := &replica{world: w, health: &daemon.Health{}, registry: prometheus.NewRegistry(), stray: make(chan func(*store))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	cfg.NATS, cfg.Listener, cfg.Health, cfg.Metrics, cfg.stray = w.server.URL(), l, r.health, r.registry, r.stray
	if cfg.Log == nil {
		cfg.Log = quiet
	}
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	stopped := false
	r.stop = func() {
		w.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.Errorf("Run ends with %v", err)
			}
		case <-time.After(patience):
			w.Error("Run does not end")
		}
	}
	w.Cleanup(r.stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	r.IndexClient = indexv1.NewIndexClient(conn)
	return r
}

// change runs a function in the writer's goroutine, which owns the store.
func (r *replica) change(f func(*store)) {
	r.Helper()
	done := make(chan struct{})
	select {
	case r.stray <- func(s *store) { f(s); close(done) }:
		<-done
	case <-time.After(patience):
		r.Fatal("the writer does not listen")
	}
}

// state is what must be equal in all replicas that have applied the same.
type state struct {
	Generation, Digest uint64
	GPU, Any           int
	Evicted            bool
}

func statesIn(s *store) map[string]state {
	all := make(map[string]state)
	for _, p := range *s.pools.Load() {
		for _, id := range p.x.Engines(nil) {
			info, _ := p.x.Engine(id)
			all[id] = state{info.Generation, info.Digest, info.VisibleGPU, info.VisibleAny, info.Evicted}
		}
	}
	return all
}

func (r *replica) states() (all map[string]state) {
	r.Helper()
	r.change(func(s *store) { all = statesIn(s) })
	return all
}

// match asks for a chain, once everything up to seq is applied.
func (r *replica) match(seq uint64, keys ...uint64) *indexv1.MatchResponse {
	r.Helper()
	var res *indexv1.MatchResponse
	r.eventually(fmt.Sprintf("sequence %d applied", seq), func() bool {
		var err error
		res, err = r.Match(r.Context(), &indexv1.MatchRequest{Pool: testPool, Keys: keys})
		return err == nil && res.Applied >= seq
	})
	return res
}

// depths is the answer as engine=gpu/any pairs.
func depths(res *indexv1.MatchResponse) map[string]string {
	m := make(map[string]string)
	for _, e := range res.Engines {
		m[e.Engine] = fmt.Sprintf("%d/%d", e.Gpu, e.Any)
	}
	return m
}

func (r *replica) expect(seq uint64, want map[string]string, keys ...uint64) {
	r.Helper()
	if got := depths(r.match(seq, keys...)); fmt.Sprint(got) != fmt.Sprint(want) {
		r.Errorf("after %d, keys %d: %v, want %v", seq, keys, got, want)
	}
}

// count is the value of a counter, summed over its labels.
func (r *replica) count(name string) (sum float64) {
	r.Helper()
	sum, err := sumCounter(r.registry, name)
	if err != nil {
		r.Fatal(err)
	}
	return sum
}

func sumCounter(registry *prometheus.Registry, name string) (sum float64, err error) {
	families, err := registry.Gather()
	for _, f := range families {
		if f.GetName() == "warmpath_index_"+name {
			for _, m := range f.Metric {
				sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum, err
}
