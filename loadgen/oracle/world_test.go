package oracle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
	"github.com/warmpath/warmpath/services/cmd/warmpath/up"
	"github.com/warmpath/warmpath/services/ingest"
	"github.com/warmpath/warmpath/services/scorer"
)

const (
	model     = "oracle/model-7b"
	adapter   = "sql-adapter"
	blockSize = 16
	blocks    = 160 // so small that everything is evicted again and again
	deadline  = 30 * time.Second
)

// world is the running system and what it was asked.
type world struct {
	t       *testing.T
	engines []*enginesim.Engine
	process *daemon.Process
	address up.Addresses
	conn    *bus.Conn
	seed    blockkey.Seed

	mu   sync.Mutex
	sent map[string]Prompt // by request id
}

// wire is how ingest hears an engine; mutants put a relay between.
type wire func(t *testing.T, e *enginesim.Engine) (events, replay string)

func direct(_ *testing.T, e *enginesim.Engine) (events, replay string) { return e.Events(), e.Replay() }

// setup is what a world is made of. Only engines must be set.
type setup struct {
	engines    int
	connect    wire                              // nil is direct
	engine     func(i int, o *enginesim.Options) // changes an engine's options
	tokenizers []scorer.Tokenizer
	log        io.Writer // warnings go there too
}

// newWorld starts n engines and all services, and waits until they are ready.
func newWorld(t *testing.T, n int, connect wire) *world {
	t.Helper()
	return setup{engines: n, connect: connect}.start(t)
}

func (s setup) start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, sent: make(map[string]Prompt)}
	var log io.Writer = testWriter{t}
	if s.log != nil {
		log = io.MultiWriter(log, s.log)
	}
	w.process = daemon.NewProcess("oracle", log, slog.LevelWarn)
	cfg := up.Config{Listen: "127.0.0.1:0", DataDir: t.TempDir(), Shards: 2, Seed: 7, Process: w.process, Tokenizers: s.tokenizers}
	if s.connect == nil {
		s.connect = direct
	}
	for i := range s.engines {
		o := enginesim.Options{
			Model: model, Adapters: []string{adapter}, Name: fmt.Sprint("engine-", i), HashSeed: "0",
			BlockSize: blockSize, Blocks: blocks, Seed: uint64(i),
			Profile: enginesim.Profile{Name: "oracle", Base: 1, Prefill: .002, Decode: .02},
			Events:  "tcp://127.0.0.1:0", Replay: "tcp://127.0.0.1:0",
		}
		if s.engine != nil {
			s.engine(i, &o)
		}
		engine, err := enginesim.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(engine.Close)
		w.engines = append(w.engines, engine)
		events, replay := s.connect(t, engine)
		cfg.Engines = append(cfg.Engines, ingest.Engine{URL: engine.URL(), Events: events, Replay: replay, Ranks: 1})
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
	case <-time.After(deadline):
		w.t.Fatalf("not ready: %v", cfg.Process.Health.Ready())
	}
	var err error
	if w.conn, err = bus.Connect(w.t.Context(), w.address.NATS, bus.Options{Name: "oracle"}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.conn.Close)
	if w.seed, err = fleet.Seed(w.t.Context(), w.conn); err != nil {
		w.t.Fatal(err)
	}
}

// talk has one talk to its end, each turn with the answers of those before.
func (w *world) talk(id string, k *talk, output int, stream bool) error {
	if len(k.turns) == 0 {
		_, err := w.ask(id, k.completion(), output, stream)
		return err
	}
	var answers []string
	for i := range k.turns {
		answer, err := w.ask(fmt.Sprintf("%s-%d", id, i), k.turn(answers), output, stream)
		if err != nil {
			return err
		}
		answers = append(answers, answer.text)
	}
	return nil
}

// ask sends one request and reads its answer to the end. Only an answer of 200 counts, and an engine that says how many
// tokens the prompt has must agree with the truth.
func (w *world) ask(id string, r request, output int, stream bool) (reply, error) {
	w.mu.Lock()
	w.sent[id] = r.Prompt
	w.mu.Unlock()
	r.body["model"], r.body["max_tokens"], r.body["ignore_eos"], r.body["stream"] = model, output, true, stream
	if r.LoRA != "" {
		r.body["model"] = r.LoRA
	}
	if r.Salt != "" {
		r.body["cache_salt"] = r.Salt
	}
	data, err := json.Marshal(r.body)
	if err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.address.Router+r.path, bytes.NewReader(data))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", id)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return reply{}, fmt.Errorf("status %s", res.Status)
	}
	answer, err := readReply(res.Body, stream)
	if err == nil && answer.prompt >= 0 && answer.prompt != len(r.Tokens) {
		err = fmt.Errorf("the engine counts %d prompt tokens, the truth has %d", answer.prompt, len(r.Tokens))
	}
	return answer, err
}

// members are the index members, by buckets.
func (w *world) members() []fleet.Member {
	w.t.Helper()
	watcher, err := fleet.Watch(w.t.Context(), w.conn, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	var members []fleet.Member
	for _, m := range watcher.View().Members {
		if m.Service == "index" && strings.HasPrefix(m.Instance, "index-") {
			members = append(members, m)
		}
	}
	return members
}

// match asks the index members themselves, not through the scorer.
func (w *world) match(clients []indexv1.IndexClient, keys []uint64) map[string]*indexv1.EngineMatch {
	w.t.Helper()
	found := make(map[string]*indexv1.EngineMatch)
	for _, client := range clients {
		answer, err := client.Match(w.t.Context(), &indexv1.MatchRequest{Pool: fleet.PoolID(model), Keys: keys})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range answer.Engines {
			found[e.Engine] = e
		}
	}
	return found
}

func (w *world) clients() []indexv1.IndexClient {
	w.t.Helper()
	var clients []indexv1.IndexClient
	for _, m := range w.members() {
		conn, err := grpc.NewClient(m.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { conn.Close() })
		clients = append(clients, indexv1.NewIndexClient(conn))
	}
	return clients
}

func (w *world) keys(p Prompt) []uint64 {
	scope := blockkey.Scope{Seed: w.seed, Pool: fleet.PoolID(model), BlockSize: blockSize, LoRA: p.LoRA, Salt: p.Salt}
	return blockkey.Keys(nil, scope, p.Tokens, nil)
}

// misread are the records whose block keys are not those of the tokens that the engines saw.
func (w *world) misread(records []Record) (lines []string) {
	for _, r := range records {
		if want := w.keys(w.sent[r.RequestID]); !r.Unknown && !slices.Equal(r.Keys(), want) {
			lines = append(lines, fmt.Sprintf("request %s to %s: %d keys, the truth has %d, or others", r.RequestID, r.API, len(r.Keys()), len(want)))
		}
	}
	return lines
}

// id is the engine's id in the registry.
func id(e *enginesim.Engine) string {
	host, port, _ := strings.Cut(strings.TrimPrefix(e.URL(), "http://"), ":")
	var n int
	fmt.Sscan(port, &n)
	return fleet.EngineIDFromURL(host, n, 0)
}

// differences compares the index with every engine's true cache: in total, and where that agrees for every prompt sent.
func (w *world) differences(clients []indexv1.IndexClient) (lines []string) {
	all := w.match(clients, nil)
	caches := make(map[string]map[uint64]int)
	for i, engine := range w.engines {
		name := id(engine)
		caches[name] = engine.Cached()
		if all[name] == nil {
			return []string{fmt.Sprintf("the index does not know engine %d", i)}
		}
		if held := len(caches[name]); int(all[name].Visible) != held {
			lines = append(lines, fmt.Sprintf("engine %d: the index shows %d blocks, the cache holds %d", i, all[name].Visible, held))
		}
	}
	if len(lines) > 0 {
		return lines
	}
	rules := blockkey.Rules{Algorithm: blockkey.SHA256CBOR, BlockSize: blockSize, Seed: "0"}
	for request, p := range w.sent {
		hashes, found := p.Hashes(rules), w.match(clients, w.keys(p))
		for name, cached := range caches {
			want, got := Depth(hashes, cached), int(found[name].GetGpu())
			if got != want {
				lines = append(lines, fmt.Sprintf("engine %s, request %s: the index matches %d blocks, the cache %d", name, request, got, want))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// settle waits until every engine is idle and the index has caught up: until nothing differs, or for patience.
func (w *world) settle(patience time.Duration) (differences []string) {
	w.t.Helper()
	for _, engine := range w.engines {
		if err := engine.Quiesce(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	clients := w.clients()
	for give := time.Now().Add(patience); ; {
		differences = w.differences(clients)
		if len(differences) == 0 || time.Now().After(give) {
			return differences
		}
	}
}

// history reads the whole event log and all request records.
func (w *world) history(records int) (log []Logged, requests []Record) {
	w.t.Helper()
	read := func(stream, subject string, until func() bool, each func(bus.Message)) {
		ctx, cancel := context.WithTimeout(w.t.Context(), deadline)
		defer cancel()
		err := w.conn.Follow(ctx, stream, []string{subject}, 1, func(m bus.Message) {
			each(m)
			if m.Pending == 0 && until() {
				cancel()
			}
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	read("REQUESTS", "req.>", func() bool { return len(requests) >= records }, func(m bus.Message) {
		r, err := ReadRecord(m.Data)
		if err != nil {
			w.t.Error(err)
		}
		requests = append(requests, r)
	})
	read("EVENTS", "kv.>", func() bool { return true }, func(m bus.Message) {
		pool, bucket, _ := bus.ParseEventSubject(m.Subject)
		l, err := ReadLogged(m.Seq, pool, bucket, m.Data)
		if err != nil {
			w.t.Error(err)
		}
		log = append(log, l)
	})
	return log, requests
}

// relay republishes an engine's events after edit has changed them: a fault on the wire that no sequence shows.
func relay(t *testing.T, e *enginesim.Engine, edit func(payload []byte) []byte) (events, replay string) {
	t.Helper()
	out, err := kvwire.Listen("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", kvwire.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = kvwire.Subscribe(ctx, e.Events(), func(f kvwire.Frame) { out.Publish(edit(f.Payload)) }, func(string) {})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		out.Close()
	})
	return out.Endpoints()
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
