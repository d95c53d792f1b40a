package scorer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/scorer"
)

const (
	patience  = 20 * time.Second
	blockSize = 16
	secret    = "a prompt that nobody may log "
)

// index is a member over a real prefix.Index.
type index struct {
	indexv1.UnimplementedIndexServer
	*prefix.Index
}

func (x index) Match(_ context.Context, r *indexv1.MatchRequest) (*indexv1.MatchResponse, error) {
	out := &indexv1.MatchResponse{Buckets: r.GetBuckets(), Applied: 7, Begun: 8}
	for _, d := range x.Index.Match(r.GetKeys(), nil) {
		out.Engines = append(out.Engines, &indexv1.EngineMatch{Engine: d.Engine, Gpu: uint32(d.GPU), Any: uint32(d.Any), Visible: 40})
	}
	return out, nil
}

// world is an installation with one pool, an engine that tokenizes bytes, one index member and a scorer.
type world struct {
	*testing.T
	conn       *bus.Conn
	seed       blockkey.Seed
	pool       fleet.Pool
	index      index
	unannounce context.CancelFunc // of the index member
	scorer     scorerv1.ScorerClient
	stop       context.CancelFunc
	stopped    chan error
	log        *lockedBuffer
	registry   *prometheus.Registry
	health     daemon.Health
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newWorld(t *testing.T, tokenizers ...scorer.Tokenizer) *world {
	t.Helper()
	w := &world{T: t, log: &lockedBuffer{}, registry: prometheus.NewRegistry(), index: index{Index: prefix.NewIndex()}}
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 1 << 30})
	w.must(err)
	t.Cleanup(server.Stop)
	w.conn, err = bus.Connect(t.Context(), server.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
	w.must(err)
	t.Cleanup(w.conn.Close)
	w.must(w.conn.Ensure(t.Context(), bus.Sizes{}))
	w.seed, err = fleet.Seed(t.Context(), w.conn)
	w.must(err)
	w.pool, err = fleet.EnsurePool(t.Context(), w.conn, fleet.Pool{ID: fleet.PoolID("m/One"), Model: "m/One", BlockSize: blockSize})
	w.must(err)
	w.announceIndex()
	w.startScorer(server.URL(), tokenizers)
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) announceIndex() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	g := grpc.NewServer()
	indexv1.RegisterIndexServer(g, w.index)
	go g.Serve(l)
	w.Cleanup(g.Stop)
	var ctx context.Context
	ctx, w.unannounce = context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fleet.Announce(ctx, w.conn, func() fleet.Member {
			return fleet.Member{Service: "index", Instance: "i", Address: l.Addr().String(), Buckets: ^uint64(0), Ready: true}
		})
	}()
	w.Cleanup(func() {
		w.unannounce()
		<-done
	})
}

func (w *world) startScorer(url string, tokenizers []scorer.Tokenizer) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	w.stopped = make(chan error, 1)
	go func() {
		w.stopped <- scorer.Run(ctx, scorer.Config{
			NATS: url, Instance: "s", Listener: l, MatchTimeout: patience / 4, TokenizeTimeout: patience, Tokenizers: tokenizers,
			Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: w.registry, Health: &w.health,
		})
	}()
	w.Cleanup(w.stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	w.Cleanup(func() { _ = conn.Close() })
	w.scorer = scorerv1.NewScorerClient(conn)
}

// startEngine records an engine whose token ids are bytes.
func (w *world) startEngine() {
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		var body struct{ Prompt, Model string }
		if json.NewDecoder(r.Body).Decode(&body) != nil || body.Model == "" {
			http.Error(out, secret, http.StatusBadRequest)
			return
		}
		ids := make([]int, len(body.Prompt))
		for i := range ids {
			ids[i] = int(body.Prompt[i])
		}
		_ = json.NewEncoder(out).Encode(map[string]any{"count": len(ids), "tokens": ids})
	}))
	w.Cleanup(server.Close)
	w.must(fleet.PutEngine(w.Context(), w.conn, fleet.Engine{
		ID: "e", Pool: w.pool.ID, URL: server.URL + "/", Role: fleet.Both, Ranks: 1, BlockSize: blockSize, State: fleet.OK,
	}))
}

// hold makes an engine hold the first blocks of a prompt.
func (w *world) hold(engine string, prompt string, blocks int, lora, salt string) []uint64 {
	tokens := make([]uint32, len(prompt))
	for i := range tokens {
		tokens[i] = uint32(prompt[i])
	}
	keys := blockkey.Keys(nil, blockkey.Scope{Seed: w.seed, Pool: w.pool.ID, BlockSize: blockSize, LoRA: lora, Salt: salt}, tokens, nil)
	w.index.Apply(engine, &prefix.Run{GPU: prefix.Added, Any: prefix.Added, Keys: keys[:blocks]})
	return keys
}

func (w *world) score(r *scorerv1.ScoreRequest) *scorerv1.ScoreResponse {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	out, err := w.scorer.Score(ctx, r, grpc.WaitForReady(true))
	w.must(err)
	return out
}

// until scores again until the answer is as wanted.
func (w *world) until(r *scorerv1.ScoreRequest, ok func(*scorerv1.ScoreResponse) bool) *scorerv1.ScoreResponse {
	w.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		out := w.score(r)
		if ok(out) {
			return out
		}
		if time.Now().After(end) {
			w.Fatalf("last answer: %v", out)
		}
	}
}

func (w *world) completion(prompt string) *scorerv1.ScoreRequest {
	return &scorerv1.ScoreRequest{
		Pool: w.pool.ID, Model: "m/One", Kind: scorerv1.Kind_KIND_COMPLETIONS,
		Spans: []*scorerv1.Span{{Name: "prompt", Value: []byte(prompt)}},
	}
}

func whole(r *scorerv1.ScoreResponse) bool { return !r.GetUnknown() && !r.GetPartial() }

func TestScoreFromPromptToDepths(t *testing.T) {
	w := newWorld(t)
	prompt := strings.Repeat(secret, 4) // 116 tokens, 7 blocks
	quoted, _ := json.Marshal(prompt)
	keys := w.hold("e", prompt, 5, "", "")
	w.hold("f", prompt, 2, "", "")
	w.hold("e", prompt, 7, "adapter", "salt")

	// Before any engine is known, ids are scored and text is not.
	ids := strings.ReplaceAll(fmt.Sprint([]byte(prompt)), " ", ",")
	r := w.until(w.completion(ids), whole)
	checkAnswer(t, r, "ids", keys, map[string]uint32{"e": 5, "f": 2})
	if r := w.score(w.completion(string(quoted))); !r.GetUnknown() || r.GetReason() != "no engine to tokenize" {
		t.Fatalf("text without an engine: %v", r)
	}

	w.startEngine()
	r = w.until(w.completion(string(quoted)), whole)
	checkAnswer(t, r, "tokenize", keys, map[string]uint32{"e": 5, "f": 2})
	checkAnswer(t, w.score(w.completion(string(quoted))), "cache", keys, map[string]uint32{"e": 5, "f": 2})

	scoped := w.completion(string(quoted))
	scoped.Lora, scoped.CacheSalt = "adapter", "salt"
	for _, e := range w.score(scoped).GetEngines() {
		if want := map[string]uint32{"e": 7, "f": 0}[e.GetEngine()]; e.GetGpu() != want {
			t.Fatalf("with adapter and salt %s holds %d, want %d", e.GetEngine(), e.GetGpu(), want)
		}
	}
	short := w.score(w.completion("[1,2,3]"))
	checkAnswer(t, short, "ids", nil, map[string]uint32{"e": 0, "f": 0})
	w.checkSilence()
}

func checkAnswer(t *testing.T, r *scorerv1.ScoreResponse, source string, keys []uint64, depths map[string]uint32) {
	t.Helper()
	if r.GetUnknown() || r.GetPartial() || r.GetSource() != source || r.GetBlockSize() != blockSize || !slices.Equal(r.GetKeys(), keys) {
		t.Fatalf("got %v, want %d keys from %s", r, len(keys), source)
	}
	if int(r.GetPromptTokens())/blockSize != len(keys) {
		t.Fatalf("%d prompt tokens for %d keys", r.GetPromptTokens(), len(keys))
	}
	for _, e := range r.GetEngines() {
		if e.GetGpu() != depths[e.GetEngine()] || e.GetVisible() != 40 {
			t.Fatalf("got %v, want depths %v", e, depths)
		}
	}
	if s := r.GetShards(); len(r.GetEngines()) != len(depths) || len(s) != 1 || s[0].GetMember() != "i" || s[0].GetApplied() != 7 || s[0].GetBegun() != 8 {
		t.Fatalf("got %v from shards %v", r.GetEngines(), s)
	}
}

func TestWhatCannotBeKnownIsUnknown(t *testing.T) {
	w := newWorld(t)
	w.startEngine()
	w.until(w.completion(`"x"`), whole)
	r := w.completion(`"x"`)
	r.Pool = "elsewhere"
	if got := w.score(r); !got.GetUnknown() || got.GetReason() != "pool not known" || got.GetKeys() != nil {
		t.Fatalf("got %v", got)
	}
	r = w.completion(`"x"`)
	r.Spans[0].Name = "prompt_embeds"
	if got := w.score(r); !got.GetUnknown() || got.GetReason() != "content is not text" {
		t.Fatalf("got %v", got)
	}
	if got := w.score(w.completion(`"` + strings.Repeat("x", 4<<20) + `"`)); !got.GetUnknown() || got.GetReason() != "prompt too large" {
		t.Fatalf("got %v", got)
	}
	w.checkSilence()
}

func TestAnIndexThatIsAwayMakesTheAnswerPartial(t *testing.T) {
	w := newWorld(t)
	w.until(w.completion("[1]"), whole)
	w.unannounce()
	r := w.until(w.completion(fmt.Sprintf("[%s1]", strings.Repeat("1,", blockSize))), (*scorerv1.ScoreResponse).GetPartial)
	if r.GetUnknown() || len(r.GetKeys()) != 1 || len(r.GetEngines()) != 0 {
		t.Fatalf("got %v", r)
	}
	w.announceIndex()
	w.until(w.completion("[1]"), whole)
}

func TestRunAnnouncesAndLeaves(t *testing.T) {
	w := newWorld(t)
	w.score(w.completion("[1]"))
	watcher, err := fleet.Watch(t.Context(), w.conn, slog.New(slog.DiscardHandler))
	w.must(err)
	announced := func() bool {
		return slices.ContainsFunc(watcher.View().Members, func(m fleet.Member) bool {
			return m.Service == "scorer" && m.Instance == "s" && m.Ready && m.Address != ""
		})
	}
	eventually(t, announced)
	if err := w.health.Ready(); err != nil {
		t.Fatal(err)
	}
	w.stop()
	if err := <-w.stopped; err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return !announced() })
}

func TestRunEndsWhileNATSIsAway(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	var health daemon.Health
	go func() {
		stopped <- scorer.Run(ctx, scorer.Config{NATS: "nats://127.0.0.1:1", Log: slog.New(slog.DiscardHandler), Health: &health})
	}()
	eventually(t, func() bool { return strings.Contains(fmt.Sprint(health.Ready()), "connecting") })
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen in %v", patience)
		}
	}
}

// checkSilence: no byte of a prompt is in the log or the metrics.
func (w *world) checkSilence() {
	w.Helper()
	families, err := w.registry.Gather()
	w.must(err)
	if len(families) < 5 {
		w.Fatalf("%d metrics", len(families))
	}
	for _, told := range []string{w.log.String(), fmt.Sprint(families)} {
		if strings.Contains(told, secret[:10]) {
			w.Fatalf("the prompt is in %s", told)
		}
	}
	if !strings.Contains(w.log.String(), "scorer serves") {
		w.Fatalf("the log was not captured: %s", w.log.String())
	}
}
