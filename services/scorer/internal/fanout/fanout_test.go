package fanout

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/warmpath/warmpath/libs/fleet"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// shard is an index member on loopback; it knows one engine in each of its buckets, at depth.
type shard struct {
	indexv1.UnimplementedIndexServer
	fleet.Member
	server *grpc.Server
	depth  uint32
	calls  atomic.Int64
	mu     sync.Mutex
	behave func(context.Context, *indexv1.MatchRequest) error
}

func startShard(t *testing.T, name string, buckets uint64, depth uint32) *shard {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &shard{server: grpc.NewServer(), depth: depth}
	s.Member = fleet.Member{Service: "index", Instance: name, Address: l.Addr().String(), Buckets: buckets, Applied: uint64(depth), Ready: true}
	indexv1.RegisterIndexServer(s.server, s)
	go s.server.Serve(l)
	t.Cleanup(s.server.Stop)
	return s
}

func (s *shard) Match(ctx context.Context, r *indexv1.MatchRequest) (*indexv1.MatchResponse, error) {
	s.calls.Add(1)
	s.mu.Lock()
	behave := s.behave
	s.mu.Unlock()
	if behave != nil {
		if err := behave(ctx, r); err != nil {
			return nil, err
		}
	}
	out := &indexv1.MatchResponse{Buckets: r.GetBuckets() & s.Buckets, Applied: s.Applied, Begun: s.Applied}
	for bucket, engine := range engines() {
		if out.GetBuckets()>>bucket&1 == 1 {
			out.Engines = append(out.Engines, &indexv1.EngineMatch{Engine: engine, Gpu: s.depth})
		}
	}
	return out, nil
}

func (s *shard) will(behave func(context.Context, *indexv1.MatchRequest) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = behave
}

// engines has an engine of each bucket.
var engines = sync.OnceValue(func() map[int]string {
	found := map[int]string{}
	for i := 0; len(found) < fleet.Buckets; i++ {
		id := fmt.Sprint("engine-", i)
		found[fleet.Bucket(id)] = id
	}
	return found
})

func start(t *testing.T, timeout time.Duration, shards ...*shard) *Fanout {
	t.Helper()
	f := New(Options{Timeout: timeout})
	t.Cleanup(f.Close)
	set(t, f, shards...)
	return f
}

func set(t *testing.T, f *Fanout, shards ...*shard) {
	t.Helper()
	var members []fleet.Member
	for _, s := range shards {
		members = append(members, s.Member)
	}
	if err := f.Set(members); err != nil {
		t.Fatal(err)
	}
}

// depths returns how many engines have which depth.
func depths(r Result) map[uint32]int {
	n := map[uint32]int{}
	for _, e := range r.Engines {
		n[e.GetGpu()]++
	}
	return n
}

func wantDepths(t *testing.T, r Result, covered uint64, want map[uint32]int) {
	t.Helper()
	got := depths(r)
	if r.Covered != covered || len(got) != len(want) {
		t.Fatalf("covered %x with depths %v, want %x with %v", r.Covered, got, covered, want)
	}
	for depth, n := range want {
		if got[depth] != n {
			t.Fatalf("depths %v, want %v", got, want)
		}
	}
}

const long = 10 * time.Second

func TestTheFewestMembersAreAsked(t *testing.T) {
	whole := startShard(t, "whole", All, 1)
	even, odd := startShard(t, "even", residue(2, 0), 2), startShard(t, "odd", residue(2, 1), 2)
	f := start(t, long, even, whole, odd)
	wantDepths(t, f.Match(t.Context(), "pool", []uint64{1}), All, map[uint32]int{1: 64})
	if even.calls.Load()+odd.calls.Load() != 0 {
		t.Fatal("one member has all buckets, others were asked too")
	}
	set(t, f, even, odd)
	wantDepths(t, f.Match(t.Context(), "pool", nil), All, map[uint32]int{2: 64})
}

func TestTheRequestCarriesPoolKeysAndBuckets(t *testing.T) {
	s := startShard(t, "s", residue(2, 0), 1)
	var got *indexv1.MatchRequest
	s.will(func(_ context.Context, r *indexv1.MatchRequest) error {
		got = r
		return nil
	})
	start(t, long, s).Match(t.Context(), "pool", []uint64{1, 1 << 63})
	if got.GetPool() != "pool" || got.GetBuckets() != residue(2, 0) || !slices.Equal(got.GetKeys(), []uint64{1, 1 << 63}) {
		t.Fatalf("got %v", got)
	}
}

func TestAFailedMembersBucketsAreAskedElsewhere(t *testing.T) {
	bad, even, odd := startShard(t, "bad", All, 9), startShard(t, "even", residue(2, 0), 1), startShard(t, "odd", residue(2, 1), 1)
	bad.will(func(context.Context, *indexv1.MatchRequest) error { return errors.New("broken") })
	f := start(t, long, bad, even, odd)
	failures := atomic.Int64{}
	f.failed = func(member string, err error) {
		if member != "bad" || err == nil {
			t.Errorf("%s failed with %v", member, err)
		}
		failures.Add(1)
	}
	wantDepths(t, f.Match(t.Context(), "pool", nil), All, map[uint32]int{1: 64})
	if failures.Load() != 1 {
		t.Fatalf("%d failures reported", failures.Load())
	}
	bad.server.Stop()
	wantDepths(t, f.Match(t.Context(), "pool", nil), All, map[uint32]int{1: 64})
	// Without a stand-in for half of them, half are covered.
	set(t, f, bad, even)
	wantDepths(t, f.Match(t.Context(), "pool", nil), residue(2, 0), map[uint32]int{1: 32})
}

func TestBucketsThatAMemberLeavesOutAreAskedElsewhere(t *testing.T) {
	short, other := startShard(t, "a", All, 9), startShard(t, "b", All, 1)
	f := start(t, long, short, other)
	short.Buckets = residue(4, 0) // it announced more than it has
	wantDepths(t, f.Match(t.Context(), "pool", nil), All, map[uint32]int{9: 16, 1: 48})
}

func TestASlowMemberIsNotReliedUpon(t *testing.T) {
	slow, quick := startShard(t, "slow", All, 9), startShard(t, "quick", residue(2, 0), 1)
	slow.will(func(ctx context.Context, _ *indexv1.MatchRequest) error {
		<-ctx.Done()
		return ctx.Err()
	})
	f := start(t, 500*time.Millisecond, slow, quick)
	begun := time.Now()
	wantDepths(t, f.Match(t.Context(), "pool", nil), residue(2, 0), map[uint32]int{1: 32})
	if took := time.Since(begun); took > long/2 {
		t.Fatalf("took %v", took)
	}
}

// Another replica is asked before the deadline, so one that hangs costs an answer nothing but time.
func TestAReplicaStandsInForASlowOne(t *testing.T) {
	slow, other := startShard(t, "slow", All, 9), startShard(t, "other", All, 1)
	slow.will(func(ctx context.Context, _ *indexv1.MatchRequest) error {
		<-ctx.Done()
		return ctx.Err()
	})
	f := start(t, time.Second, slow, other)
	wantDepths(t, f.Match(t.Context(), "pool", nil), All, map[uint32]int{1: 64})
	if slow.calls.Load() != 1 || other.calls.Load() != 1 {
		t.Fatalf("%d and %d calls", slow.calls.Load(), other.calls.Load())
	}
}

// A member that answers after its stand-in: the later sequence counts, and nothing twice.
func TestASlowMembersAnswerStillCounts(t *testing.T) {
	slow, quick := startShard(t, "slow", All, 9), startShard(t, "quick", residue(2, 0), 1)
	release := make(chan struct{})
	slow.will(func(context.Context, *indexv1.MatchRequest) error {
		<-release
		return nil
	})
	quick.will(func(context.Context, *indexv1.MatchRequest) error {
		close(release)
		return nil
	})
	f := start(t, 2*time.Second, slow, quick)
	r := f.Match(t.Context(), "pool", nil)
	if n := depths(r); r.Covered != All || len(r.Engines) != 64 || n[9] < 32 {
		t.Fatalf("covered %x with %v", r.Covered, n)
	}
}

func TestNoMemberIsNoAnswer(t *testing.T) {
	f := start(t, long)
	if r := f.Match(t.Context(), "pool", []uint64{1}); r.Covered != 0 || len(r.Engines) != 0 {
		t.Fatalf("got %+v", r)
	}
	unready := startShard(t, "unready", All, 1)
	unready.Ready = false
	router := startShard(t, "router", All, 1)
	router.Service = "router"
	set(t, f, unready, router)
	if f.Covered() != 0 {
		t.Fatal("a member that is not ready, or no index, is relied upon")
	}
}

func TestConnectionsFollowTheMembers(t *testing.T) {
	a, b := startShard(t, "a", All, 1), startShard(t, "b", All, 2)
	f := start(t, 500*time.Millisecond, a)
	f.Match(t.Context(), "pool", nil)
	conn := f.conns[a.Address]
	set(t, f, a, b)
	if f.conns[a.Address] != conn || len(f.conns) != 2 {
		t.Fatal("the connection to a member that stayed was replaced")
	}
	// Who asked before the member went still gets its answer, and then the connection is closed.
	entered, release := make(chan struct{}), make(chan struct{})
	a.will(func(context.Context, *indexv1.MatchRequest) error {
		close(entered)
		<-release
		return nil
	})
	set(t, f, a)
	answered := make(chan Result, 1)
	go func() { answered <- f.Match(context.Background(), "pool", nil) }()
	<-entered
	set(t, f, b)
	close(release)
	wantDepths(t, <-answered, All, map[uint32]int{1: 64})
	if f.conns[a.Address] != nil {
		t.Fatal("a member that went is still known")
	}
	for end := time.Now().Add(long); conn.GetState() != connectivity.Shutdown; {
		ctx, cancel := context.WithDeadline(t.Context(), end)
		changed := conn.WaitForStateChange(ctx, conn.GetState())
		if cancel(); !changed {
			t.Fatalf("the connection to a member that went is %v", conn.GetState())
		}
	}
	wantDepths(t, f.Match(t.Context(), "pool", nil), All, map[uint32]int{2: 64})
}

func TestMatchWhileMembersComeAndGo(t *testing.T) {
	a, b := startShard(t, "a", All, 1), startShard(t, "b", All, 1)
	b.Applied = 5 // asked first whenever it is there, also when it goes meanwhile
	f := start(t, long, a)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				set(t, f, a, b)
				set(t, f, a)
			}
		}
	})
	for range 200 {
		wantDepths(t, f.Match(t.Context(), "pool", nil), All, map[uint32]int{1: 64})
	}
	close(stop)
	wg.Wait()
}

func BenchmarkMatchOneMember(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &shard{server: grpc.NewServer(), depth: 1}
	s.Member = fleet.Member{Service: "index", Instance: "s", Address: l.Addr().String(), Buckets: All, Ready: true}
	indexv1.RegisterIndexServer(s.server, s)
	go s.server.Serve(l)
	defer s.server.Stop()
	f := New(Options{Timeout: time.Second})
	defer f.Close()
	if err := f.Set([]fleet.Member{s.Member}); err != nil {
		b.Fatal(err)
	}
	keys := make([]uint64, 500)
	b.ReportAllocs()
	for b.Loop() {
		if f.Match(b.Context(), "pool", keys).Covered != All {
			b.Fatal("not covered")
		}
	}
}
