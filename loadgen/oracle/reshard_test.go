package oracle

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/index"
	"github.com/warmpath/warmpath/services/scorer"
)

// plane is an event log, index replicas over it, and a scorer that asks them; engines are played by the test.
type plane struct {
	*testing.T
	url     string
	conn    *bus.Conn
	pool    fleet.Pool
	keys    []uint64 // of the one prompt
	prompt  string   // token ids as JSON
	watcher *fleet.Watcher
	scorer  scorerv1.ScorerClient
	stops   map[string]func()
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{T: t, stops: make(map[string]func())}
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 1 << 30})
	p.must(err)
	t.Cleanup(server.Stop)
	p.url = server.URL()
	p.conn, err = bus.Connect(t.Context(), p.url, bus.Options{Log: slog.New(slog.DiscardHandler)})
	p.must(err)
	t.Cleanup(p.conn.Close)
	p.must(p.conn.Ensure(t.Context(), bus.Sizes{}))
	seed, err := fleet.Seed(t.Context(), p.conn)
	p.must(err)
	p.pool, err = fleet.EnsurePool(t.Context(), p.conn, fleet.Pool{ID: fleet.PoolID(model), Model: model, BlockSize: blockSize})
	p.must(err)
	p.watcher, err = fleet.Watch(t.Context(), p.conn, slog.New(slog.DiscardHandler))
	p.must(err)
	tokens := make([]uint32, 24*blockSize)
	for i := range tokens {
		tokens[i] = uint32(1000 + i)
	}
	p.keys = blockkey.Keys(nil, blockkey.Scope{Seed: seed, Pool: p.pool.ID, BlockSize: blockSize}, tokens, nil)
	p.prompt = strings.ReplaceAll(fmt.Sprint(tokens), " ", ",")
	return p
}

func (p *plane) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *plane) eventually(what string, ok func() bool) {
	p.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("never: %s", what)
		}
	}
}

// run runs a service until its stop is called, or the test ends.
func (p *plane) run(name string, run func(context.Context, net.Listener) error) (address string) {
	p.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, listener) }()
	p.stops[name] = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			p.Errorf("%s ends with %v", name, err)
		}
	})
	p.Cleanup(p.stops[name])
	return listener.Addr().String()
}

// startIndex starts the replica with this ordinal, and returns when its record says that it is ready.
func (p *plane) startIndex(ordinal, shards int) {
	p.Helper()
	shard, err := index.ShardOf(shards, fmt.Sprint("index-", ordinal), "")
	p.must(err)
	name := fmt.Sprintf("index-%d-of-%d", ordinal, shards)
	p.run(fmt.Sprint(ordinal), func(ctx context.Context, l net.Listener) error {
		return index.Run(ctx, index.Config{NATS: p.url, Instance: name, Listener: l, Shards: shards, Shard: shard, Log: slog.New(slog.DiscardHandler)})
	})
	p.eventually(name+" is ready", func() bool {
		return slices.ContainsFunc(p.watcher.View().Members, func(m fleet.Member) bool { return m.Instance == name && m.Ready })
	})
}

func (p *plane) startScorer() {
	p.Helper()
	var health daemon.Health
	address := p.run("scorer", func(ctx context.Context, l net.Listener) error {
		return scorer.Run(ctx, scorer.Config{NATS: p.url, Instance: "scorer", Listener: l, MatchTimeout: deadline / 3,
			Log: slog.New(slog.DiscardHandler), Health: &health})
	})
	p.eventually("the scorer is ready", func() bool { return health.Ready() == nil })
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	p.must(err)
	p.Cleanup(func() { conn.Close() })
	p.scorer = scorerv1.NewScorerClient(conn)
}

// engineOf makes the id of an engine in a bucket.
func engineOf(bucket int) string {
	for port := 1; ; port++ {
		if id := fleet.EngineIDFromURL("h", port, 0); fleet.Bucket(id) == bucket {
			return id
		}
	}
}

// owner writes the log of one bucket with one engine, which holds the first blocks of the prompt.
type owner struct {
	*plane
	bucket     int
	engine     string
	writer     *bus.Writer
	counter    uint64
	generation uint64
	depth      int
}

func (o *owner) write(write func(context.Context, []byte) (uint64, error), part *eventsv1.Part) uint64 {
	o.counter++
	data, err := proto.Marshal(&eventsv1.Message{Version: 1, Owner: "a", Counter: o.counter, Parts: []*eventsv1.Part{part}})
	if err != nil {
		o.Error(err)
	}
	seq, err := write(context.Background(), data)
	if err != nil {
		o.Error(err)
	}
	return seq
}

func (p *plane) owner(bucket int) *owner {
	p.Helper()
	o := &owner{plane: p, bucket: bucket, engine: engineOf(bucket), writer: p.conn.Writer(bus.EventSubject(p.pool.ID, bucket))}
	o.write(o.writer.Claim, &eventsv1.Part{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}})
	o.generation = o.write(o.writer.Publish, &eventsv1.Part{Engine: o.engine, Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{}}})
	p.must(fleet.PutEngine(p.Context(), p.conn, fleet.Engine{ID: o.engine, Pool: p.pool.ID, Generation: o.generation, State: fleet.OK}))
	return o
}

// step changes what the engine holds, or publishes it again whole.
func (o *owner) step(rnd *rand.Rand) {
	part := &eventsv1.Part{Engine: o.engine}
	switch n := rnd.IntN(20); {
	case n == 0:
		s := &eventsv1.Snapshot{Part: 1, Parts: 1, Generation: o.generation, Runs: shows(o.keys[:o.depth]...)}
		s.Count, s.Digest = digestOf(o.keys[:o.depth]...)
		part.Body = &eventsv1.Part_Snapshot{Snapshot: s}
	case n < 8 && o.depth > 0:
		o.depth--
		part.Body = &eventsv1.Part_Delta{Delta: &eventsv1.Delta{Runs: []*eventsv1.Run{{Copy: hidden, Gpu: hidden, Any: hidden, Keys: o.keys[o.depth : o.depth+1]}}}}
	case o.depth < len(o.keys):
		o.depth++
		part.Body = &eventsv1.Part_Delta{Delta: &eventsv1.Delta{Runs: shows(o.keys[o.depth-1])}}
	default:
		return
	}
	o.write(o.writer.Publish, part)
}

// churn writes all buckets, a message each pace, until ctx ends.
func churn(ctx context.Context, owners []*owner, pace time.Duration) {
	rnd, tick := rand.New(rand.NewPCG(8, 1)), time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			owners[rnd.IntN(len(owners))].step(rnd)
		}
	}
}

// score asks for the prompt and returns the answer as a record; it must cover all buckets and name every engine.
func (p *plane) score(ctx context.Context, id string) (Record, error) {
	res, err := p.scorer.Score(ctx, &scorerv1.ScoreRequest{
		Pool: p.pool.ID, Model: model, Kind: scorerv1.Kind_KIND_COMPLETIONS, Spans: []*scorerv1.Span{{Name: "prompt", Value: []byte(p.prompt)}},
	})
	if err != nil {
		return Record{}, err
	}
	r := Record{RequestID: id, Unknown: res.Unknown, Partial: res.Partial}
	for _, key := range res.Keys {
		r.Packed = binary.LittleEndian.AppendUint64(r.Packed, key)
	}
	covered := uint64(0)
	for _, s := range res.Shards {
		if covered&s.Buckets != 0 {
			return r, fmt.Errorf("two shards of one answer have the same buckets: %v", res.Shards)
		}
		covered |= s.Buckets
		r.Shards = append(r.Shards, RecordShard{Buckets: s.Buckets, Applied: s.Applied, Begun: s.Begun})
	}
	for _, e := range res.Engines {
		r.Depths = append(r.Depths, RecordDepth{Engine: e.Engine, GPU: int(e.Gpu), Any: int(e.Any)})
	}
	if res.Unknown || res.Partial || covered != ^uint64(0) || len(res.Engines) != fleet.Buckets || !slices.Equal(res.Keys, p.keys) {
		return r, fmt.Errorf("unknown %v (%s), partial %v, buckets %016x, %d engines, %d keys", res.Unknown, res.Reason, res.Partial, covered, len(res.Engines), len(res.Keys))
	}
	return r, nil
}

const hidden = eventsv1.Change_CHANGE_REMOVED

// Two shards become three by restarting one replica after another, while engines store and evict and prompts are
// scored: every answer covers all buckets and is exact.
func TestReshardingLosesNothing(t *testing.T) {
	p := newPlane(t)
	var owners []*owner
	for b := range fleet.Buckets {
		owners = append(owners, p.owner(b))
	}
	for ordinal := range 4 {
		p.startIndex(ordinal, 2)
	}
	p.startScorer()
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	busy.Go(func() { churn(ctx, owners, 3*time.Millisecond) })
	var mu sync.Mutex
	var records []Record
	for client := range 2 {
		busy.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				r, err := p.score(context.WithoutCancel(ctx), fmt.Sprintf("%d-%d", client, n))
				if err != nil {
					t.Errorf("answer %d of client %d: %v", n, client, err)
					return
				}
				mu.Lock()
				records = append(records, r)
				mu.Unlock()
				<-time.After(10 * time.Millisecond)
			}
		})
	}
	// As a StatefulSet that has grown and got another template: from the highest ordinal down.
	for ordinal := 5; ordinal >= 0; ordinal-- {
		if stop := p.stops[fmt.Sprint(ordinal)]; stop != nil {
			stop()
		}
		p.startIndex(ordinal, 3)
	}
	cancel()
	busy.Wait()
	if len(records) < 50 {
		t.Fatalf("only %d answers", len(records))
	}
	violations, answers := Possible(p.log(), records)
	if len(violations) > 0 {
		t.Fatalf("%d of %d answers are impossible, first: %s", len(violations), answers, violations[0])
	}
	moving, schemes := map[int]bool{}, map[uint64]bool{}
	for _, r := range records {
		for _, d := range r.Depths {
			moving[d.GPU] = true
		}
		for _, s := range r.Shards {
			schemes[s.Buckets] = true
		}
	}
	if len(moving) < 5 || len(schemes) < 5 {
		t.Fatalf("answers have only %d different depths, from only %d sets of buckets: the test tests nothing", len(moving), len(schemes))
	}
	t.Logf("%d answers from %d sets of buckets", len(records), len(schemes))
}

func (p *plane) log() (log []Logged) {
	p.Helper()
	state, err := p.conn.StreamState(p.Context(), bus.Events)
	p.must(err)
	err = p.conn.Read(p.Context(), bus.Span{Stream: bus.Events, To: state.Last}, func(m bus.Message) {
		pool, bucket, _ := bus.ParseEventSubject(m.Subject)
		l, err := ReadLogged(m.Seq, pool, bucket, m.Data)
		if err != nil {
			p.Error(err)
		}
		log = append(log, l)
	})
	p.must(err)
	return log
}
