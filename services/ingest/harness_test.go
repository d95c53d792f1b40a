package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// plane is a NATS server, an ingest and a reader of the log.
type plane struct {
	t       testing.TB
	dir     string
	server  *embedded.Server
	port    int
	conn    *bus.Conn
	log     *logReader
	metrics *prometheus.Registry
	logger  *slog.Logger // of ingest
	times   times
}

func newPlane(t testing.TB) *plane {
	t.Helper()
	return newPlaneOf(t, 16)
}

// newPlaneOf has a pool of this canonical block size.
func newPlaneOf(t testing.TB, canonical int) *plane {
	t.Helper()
	return newPlaneWith(t, canonical, bus.Sizes{})
}

// newPlaneWith has streams of these sizes too.
func newPlaneWith(t testing.TB, canonical int, sizes bus.Sizes) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir(), logger: quiet(), times: quick()}
	p.startNATS()
	t.Cleanup(func() { p.server.Stop() })
	conn, err := bus.Connect(t.Context(), p.server.URL(), bus.Options{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.Ensure(t.Context(), sizes); err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.EnsurePool(t.Context(), conn, fleet.Pool{ID: fleet.PoolID(model), Model: model, BlockSize: canonical}); err != nil {
		t.Fatal(err)
	}
	p.conn = conn
	p.log = readLog(t, conn, canonical)
	return p
}

// as is the same plane for a test of its own.
func (p *plane) as(t testing.TB) *plane {
	q := *p
	q.t = t
	return &q
}

func (p *plane) startNATS() {
	server, err := embedded.Start(embedded.Options{Dir: p.dir, Port: p.port})
	if err != nil {
		p.t.Fatal(err)
	}
	p.server = server
	if _, err := fmt.Sscanf(server.URL()[strings.LastIndex(server.URL(), ":")+1:], "%d", &p.port); err != nil {
		p.t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// quick are the protocol's delays in tests.
func quick() times {
	return times{probe: 50 * time.Millisecond, retry: 20 * time.Millisecond, gone: 400 * time.Millisecond,
		firstCheck: 50 * time.Millisecond, check: 100 * time.Millisecond, replayIdle: 500 * time.Millisecond,
		fenced: 300 * time.Millisecond, record: 5 * time.Millisecond, upkeep: 100 * time.Millisecond, ask: time.Millisecond,
		silent: 200 * time.Millisecond, gauges: 20 * time.Millisecond, digest: 100 * time.Millisecond, look: 20 * time.Millisecond,
		join: 50 * time.Millisecond}
}

// ingest runs one replica and returns how to stop it.
func (p *plane) ingest(instance string, engines ...*engine) (stop func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	p.metrics = prometheus.NewRegistry()
	cfg := Config{NATS: p.server.URL(), Instance: instance, Log: p.logger, Metrics: p.metrics, times: p.times}
	for _, e := range engines {
		cfg.Engines = append(cfg.Engines, e.config)
	}
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("Run: %v", err)
		}
	})
	p.t.Cleanup(stop)
	return stop
}

// count reads a counter or gauge, or how much a histogram counts, its labels given as "name=value".
func (p *plane) count(name string, labels ...string) float64 {
	families, err := p.metrics.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "warmpath_ingest_"+name {
			continue
		}
	metrics:
		for _, m := range f.Metric {
			for _, want := range labels {
				k, v, _ := strings.Cut(want, "=")
				for _, l := range m.Label {
					if l.GetName() == k && l.GetValue() != v {
						continue metrics
					}
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

const model = "org/Model-1.5"

// engine is a fake engine: HTTP pages and a real publisher.
type engine struct {
	t         testing.TB
	pub       *kvwire.Publisher
	http      *httptest.Server
	config    Engine
	id        string
	model     string
	blockSize int
	blocks    int
	started   atomic.Int64
	grown     atomic.Int64 // blocks more than at first
	down      atomic.Bool
	asleep    atomic.Bool  // its cache is discarded
	pages     atomic.Int64 // answered
	asked     atomic.Int64 // blocks of prompts answered
	hit       atomic.Int64 // of them cached
	ts        float64
}

func newEngine(t testing.TB, blockSize int, o kvwire.PublisherOptions) *engine {
	t.Helper()
	pub, err := kvwire.Listen("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	e := &engine{t: t, pub: pub, model: model, blockSize: blockSize, blocks: 100_000, ts: float64(time.Now().Unix())}
	e.started.Store(1_700_000_000)
	e.http = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.http.Close)
	e.config = Engine{URL: e.http.URL, Role: fleet.Both, Ranks: 1}
	e.config.Events, e.config.Replay = pub.Endpoints()
	e.id = e.config.ranks()[0].id
	return e
}

func (e *engine) serve(w http.ResponseWriter, r *http.Request) {
	defer e.pages.Add(1)
	switch {
	case e.down.Load():
		http.Error(w, "down", http.StatusServiceUnavailable)
	case r.URL.Path == "/v1/models":
		fmt.Fprintf(w, `{"object":"list","data":[{"id":%q,"max_model_len":4096},{"id":"sql-lora","parent":%q}]}`, e.model, e.model)
	case r.URL.Path == "/metrics":
		fmt.Fprintf(w, "vllm:prompt_tokens_total{engine=\"0\"} %d\nvllm:prefix_cache_hits_total{engine=\"0\"} %d\n",
			e.asked.Load()*int64(e.blockSize), e.hit.Load()*int64(e.blockSize))
		if e.asleep.Load() {
			fmt.Fprint(w, "vllm:engine_sleep_state{engine=\"0\",sleep_state=\"discard_all\"} 1\n")
		}
		fmt.Fprintf(w, "process_start_time_seconds %d\nvllm:cache_config_info{block_size=%q,num_gpu_blocks=%q,engine=\"0\"} 1\n",
			e.started.Load(), fmt.Sprint(e.blockSize), fmt.Sprint(int64(e.blocks)+e.grown.Load()))
	default:
		http.NotFound(w, r)
	}
}

// prompt answers a prompt of so many blocks, some of which were cached, and says nothing of it.
func (e *engine) prompt(blocks, cached int64) {
	e.hit.Add(cached)
	e.asked.Add(blocks)
}

// publish sends events as one batch.
func (e *engine) publish(events ...kvevent.Event) {
	e.ts += 0.001
	b := kvevent.Batch{TS: e.ts, HasRank: true, Events: events}
	e.pub.Publish(kvevent.Append(nil, &b, kvevent.MapForm))
}

// stored announces blocks: a chain of hashes after parent, or from the start of a prompt where parent is 0.
func (e *engine) stored(parent uint64, hashes ...uint64) kvevent.Event {
	ev := kvevent.Event{Kind: kvevent.Stored, Hashes: hashes, Parent: parent, HasParent: parent != 0, BlockSize: e.blockSize, Medium: "GPU"}
	for _, h := range hashes {
		for range e.blockSize {
			ev.Tokens = append(ev.Tokens, uint32(h))
		}
	}
	return ev
}

func removed(hashes ...uint64) kvevent.Event {
	return kvevent.Event{Kind: kvevent.Removed, Hashes: hashes, Medium: "GPU"}
}

// copies are counted copies.
type copies map[copyID]int

type copyID struct {
	hash  uint64
	group int
}

func copyKey(hash uint64, group int) copyID { return copyID{hash, group} }

func held(hashes ...uint64) copies {
	c := copies{}
	for _, h := range hashes {
		c[copyKey(h, 0)]++
	}
	return c
}

// logReader folds the event log as any reader must, and notes every breach of the protocol.
type logReader struct {
	canonical int

	ends func() // stops to read

	mu       sync.Mutex
	engines  map[string]*readEngine
	buckets  map[string]*readBucket
	breaches []string
	largest  int
	kinds    map[string]int // of parts
	messages int
}

type readEngine struct {
	fold       *prefix.Engine
	generation uint64
	parts      []*eventsv1.Snapshot
}

type readBucket struct {
	owner   string
	counter uint64
}

func readLog(t testing.TB, conn *bus.Conn, canonical int) *logReader {
	r := &logReader{canonical: canonical, engines: map[string]*readEngine{}, buckets: map[string]*readBucket{}, kinds: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := conn.Follow(ctx, bus.Events, nil, 1, r.message); err != nil {
			t.Errorf("Follow: %v", err)
		}
	}()
	r.ends = func() { cancel(); <-done }
	t.Cleanup(func() {
		r.ends()
		for _, b := range r.breaches {
			t.Errorf("breach of the log's protocol: %s", b)
		}
	})
	return r
}

func (r *logReader) breach(format string, args ...any) {
	r.breaches = append(r.breaches, fmt.Sprintf(format, args...))
}

func (r *logReader) message(m bus.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var msg eventsv1.Message
	if err := proto.Unmarshal(m.Data, &msg); err != nil || msg.Version > eventlog.Version {
		return // a test's own garbage
	}
	r.messages++
	r.largest = max(r.largest, len(m.Data))
	b := r.buckets[m.Subject]
	if b == nil {
		b = &readBucket{}
		r.buckets[m.Subject] = b
	}
	claim := msg.Parts[0].GetClaim() != nil
	switch {
	case claim:
	case msg.Owner != b.owner:
		r.breach("message %d of %s while %s owns %s", m.Seq, msg.Owner, b.owner, m.Subject)
	case msg.Counter != b.counter+1:
		r.breach("message %d has counter %d after %d", m.Seq, msg.Counter, b.counter)
	}
	b.owner, b.counter = msg.Owner, msg.Counter
	if claim {
		for _, e := range r.engines {
			e.parts = nil
		}
	}
	for _, p := range msg.Parts {
		r.part(m, p)
	}
}

func (r *logReader) part(m bus.Message, p *eventsv1.Part) {
	e := r.engines[p.Engine]
	if d := p.GetDelta(); d != nil && (e == nil || d.Received == 0 || d.Batch == nil) {
		r.breach("delta of %s before its reset, or incomplete, at %d", p.Engine, m.Seq)
		return
	}
	if s := p.GetSnapshot(); e != nil && s == nil && e.parts != nil {
		e.parts = nil
		if p.GetDelta() != nil {
			r.breach("delta of %s between the parts of its snapshot at %d", p.Engine, m.Seq)
		}
	}
	switch body := p.Body.(type) {
	case *eventsv1.Part_Reset_:
		r.kinds["reset"]++
		r.engines[p.Engine] = &readEngine{fold: prefix.NewEngine(prefix.EngineOptions{BlockSize: r.canonical}), generation: m.Seq}
	case *eventsv1.Part_Delta:
		r.kinds["delta"]++
		restore(e.fold, body.Delta.Runs)
	case *eventsv1.Part_Digest:
		r.kinds["digest"]++
		if e == nil {
			r.breach("digest of %s before its reset at %d", p.Engine, m.Seq)
		} else if got := e.fold.Stats(); got.Digest != body.Digest.Digest || uint64(got.VisibleAny) != body.Digest.Count {
			r.breach("digest %x and %d rows at %d, the log gives %x and %d", body.Digest.Digest, body.Digest.Count, m.Seq, got.Digest, got.VisibleAny)
		}
	case *eventsv1.Part_Snapshot:
		r.kinds["snapshot"]++
		r.snapshot(m, e, body.Snapshot)
	}
}

func (r *logReader) snapshot(m bus.Message, e *readEngine, s *eventsv1.Snapshot) {
	if s.Generation != e.generation {
		r.breach("snapshot at %d of generation %d, not %d", m.Seq, s.Generation, e.generation)
	}
	if s.Part == 1 {
		e.parts = nil
	}
	if int(s.Part) != len(e.parts)+1 {
		r.breach("snapshot part %d after %d at %d", s.Part, len(e.parts), m.Seq)
		return
	}
	if e.parts = append(e.parts, s); s.Part < s.Parts {
		return
	}
	e.fold.Reset()
	for _, part := range e.parts {
		restore(e.fold, part.Runs)
	}
	e.parts = nil
	if got := e.fold.Stats(); got.Digest != s.Digest || uint64(got.VisibleAny) != s.Count {
		r.breach("snapshot at %d gives digest %x and %d rows, not %x and %d", m.Seq, got.Digest, got.VisibleAny, s.Digest, s.Count)
	}
}

func restore(fold *prefix.Engine, runs []*eventsv1.Run) {
	for _, r := range runs {
		if run, err := eventlog.Run(r); err == nil { // else the state is not what its digest says
			fold.Restore(&run)
		}
	}
}

// copies returns what the log says of an engine; ok is false while it says nothing.
func (r *logReader) copies(id string) (c copies, generation uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.engines[id]
	if e == nil || e.parts != nil {
		return nil, 0, false
	}
	c = copies{}
	e.fold.Copies(func(_ prefix.Tier, group int, hash uint64, n int) bool {
		c[copyKey(hash, group)] += n
		return true
	})
	return c, e.generation, true
}

// biggest is the size of the largest message.
func (r *logReader) biggest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.largest
}

func (r *logReader) seen(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kinds[kind]
}

// holds waits until the log says exactly this of an engine.
func (p *plane) holds(e *engine, want copies) (generation uint64) {
	p.t.Helper()
	var got copies
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the log says %d blocks, want %d", len(got), len(want))
		}
	}()
	eventually(p.t, fmt.Sprintf("%s holds %d blocks in the log", e.id, len(want)), func() bool {
		var ok bool
		got, generation, ok = p.log.copies(e.id)
		return ok && maps.Equal(got, want)
	})
	return generation
}

// record waits until an engine's record says this.
func (p *plane) record(e *engine, what string, ok func(fleet.Engine) bool) fleet.Engine {
	p.t.Helper()
	w, err := fleet.Watch(p.t.Context(), p.conn, quiet())
	if err != nil {
		p.t.Fatal(err)
	}
	var r fleet.Engine
	defer func() {
		if p.t.Failed() {
			p.t.Logf("record: %+v", r)
		}
	}()
	eventually(p.t, "record "+what, func() bool { r = w.View().Engines[e.id]; return ok(r) })
	return r
}
