package index

import (
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/fleet"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// cache is the model of one engine's visible blocks: how many leading keys of each chain it holds.
type cache struct {
	gpu, any [4]int
}

// chain is the i-th chain of keys: half of it is shared with its neighbour.
func chain(i int) []uint64 {
	keys := make([]uint64, 32)
	for d := range keys {
		if d < 16 {
			keys[d] = uint64(i/2)<<32 | uint64(d)
		} else {
			keys[d] = uint64(i+100)<<32 | uint64(d)
		}
	}
	return keys
}

// grow publishes one random change of chains 1 and 3, which share nothing, and notes it in the model.
func (c *cache) grow(rnd *rand.Rand, o *owner, engine string) uint64 {
	i := 1 + 2*rnd.IntN(2)
	keys := chain(i)
	switch n := rnd.IntN(5); {
	case n < 2 && c.gpu[i] < len(keys): // store in gpu; in any it may be already
		from := c.gpu[i]
		to := min(from+1+rnd.IntN(4), len(keys))
		c.gpu[i] = to
		parts := deltaOf(engine, runOf(shown, 0, keys[from:to]...))
		if to > c.any[i] {
			parts.GetDelta().Runs = append(parts.GetDelta().Runs, runOf(0, shown, keys[c.any[i]:to]...))
			c.any[i] = to
		}
		return o.write(parts)
	case n == 2 && c.gpu[i] > 0: // evicted from gpu, kept elsewhere
		c.gpu[i]--
		return o.write(deltaOf(engine, runOf(hidden, 0, keys[c.gpu[i]])))
	case n == 3 && c.any[i] > c.gpu[i]: // gone from everywhere
		c.any[i]--
		return o.write(deltaOf(engine, runOf(0, hidden, keys[c.any[i]])))
	}
	return 0
}

func TestDepthsAreExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	engines := []string{engineIn(5, 0), engineIn(9, 0)}
	owners := []*owner{w.owner("ingest-a", 5), w.owner("ingest-b", 9)}
	caches := make([]cache, 2)
	var last uint64
	for i, o := range owners {
		o.claim()
		last = o.write(resetOf(engines[i]))
	}
	r := w.startIndex(Config{})
	rnd := rand.New(rand.NewPCG(1, 2))
	check := func() *indexv1.MatchResponse {
		t.Helper()
		var res *indexv1.MatchResponse
		for i := range 4 {
			res = r.match(last, chain(i)...)
			if len(res.Engines) != 2 || res.Begun != res.Applied || res.Buckets != 1<<64-1 {
				t.Fatalf("answer %v", res)
			}
			for j, e := range res.Engines {
				k := 0
				if e.Engine == engines[1] {
					k = 1
				}
				gpu, any := caches[k].gpu[i|1], caches[k].any[i|1]
				if i%2 == 0 { // shares 16 blocks with its neighbour
					gpu, any = min(gpu, 16), min(any, 16)
				}
				if int(e.Gpu) != gpu || int(e.Any) != any {
					t.Fatalf("engine %d, chain %d: %d/%d, want %d/%d", j, i, e.Gpu, e.Any, gpu, any)
				}
			}
		}
		return res
	}
	for step := range 600 {
		k := rnd.IntN(2)
		if seq := caches[k].grow(rnd, owners[k], engines[k]); seq > 0 {
			last = seq
		}
		if step%50 == 0 {
			check()
		}
	}
	res := check()
	for _, e := range res.Engines {
		k := 0
		if e.Engine == engines[1] {
			k = 1
		}
		if want := uint64(caches[k].gpu[1] + caches[k].gpu[3]); e.Visible != want || !e.Evicted || e.LagUs <= 0 {
			t.Errorf("engine %d: visible %d (want %d), evicted %v, lag %d us", k, e.Visible, want, e.Evicted, e.LagUs)
		}
	}
	if n := r.count("refused_total") + r.count("fenced_messages_total") + r.count("holes_total") + r.count("skipped_parts_total"); n != 0 {
		t.Errorf("%v messages or parts were refused", n)
	}
	if r.count("lag_seconds") == 0 {
		t.Error("no lag was measured")
	}
}

func TestResetBeginsALife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	first := o.write(resetOf(e), show(e, 1, 2, 3))
	r.expect(first, map[string]string{e: "3/3"}, 1, 2, 3, 4)
	second := o.write(resetOf(e))
	res := r.match(second, 1, 2, 3)
	if got := res.Engines[0]; got.Gpu != 0 || got.Any != 0 || got.Visible != 0 || got.Generation != second {
		t.Errorf("after a reset at %d: %v", second, got)
	}
	seq := o.write(show(e, 1))
	r.expect(seq, map[string]string{e: "1/1"}, 1, 2, 3)
	if g := r.match(seq, 1).Engines[0].Generation; g != second {
		t.Errorf("generation %d, want %d", g, second)
	}
}

func TestRestartGivesTheSameAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.startIndex(Config{})
	var last uint64
	rnd := rand.New(rand.NewPCG(3, 4))
	for b := range 4 {
		o, e, c := w.owner("a", b), engineIn(b, b), cache{}
		o.claim()
		o.write(resetOf(e))
		for range 200 {
			last = max(last, c.grow(rnd, o, e))
		}
	}
	want := first.match(last, chain(1)...)
	first.stop()
	// No waiting here: ready means that everything is applied.
	got, err := w.startIndex(Config{}).Match(t.Context(), &indexv1.MatchRequest{Pool: testPool, Keys: chain(1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, res := range []*indexv1.MatchResponse{want, got} {
		for _, e := range res.Engines {
			e.LagUs = 0
		}
	}
	if len(want.Engines) != 4 || !proto.Equal(got, want) {
		t.Errorf("after a restart %v, before %v", got, want)
	}
}

func TestShardsOwnDisjointBuckets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var last [2]uint64
	want := [2]map[string]string{{}, {}}
	for b := range 6 {
		o, e := w.owner("a", b), engineIn(b, 0)
		o.claim()
		last[b%2] = o.write(resetOf(e), show(e, 1, 2))
		want[b%2][e] = "2/2"
	}
	even, odd := w.startIndex(Config{Shards: 2, Shard: 0}), w.startIndex(Config{Shards: 2, Shard: 1})
	even.expect(last[0], want[0], 1, 2, 3)
	odd.expect(last[1], want[1], 1, 2, 3)
	a, b := even.match(last[0], 1), odd.match(last[1], 1)
	if a.Buckets&b.Buckets != 0 || a.Buckets|b.Buckets != 1<<64-1 {
		t.Errorf("the shards cover %016x and %016x", a.Buckets, b.Buckets)
	}
	res, err := even.Match(t.Context(), &indexv1.MatchRequest{Pool: testPool, Keys: []uint64{1}, Buckets: 1<<2 | 1<<3})
	if err != nil || res.Buckets != 1<<2 || len(res.Engines) != 1 || res.Engines[0].Engine != engineIn(2, 0) {
		t.Errorf("asked for buckets 2 and 3, the even shard answers %v, %v", res, err)
	}
	res, err = even.Match(t.Context(), &indexv1.MatchRequest{Pool: "unknown", Keys: []uint64{1}})
	if err != nil || len(res.Engines) != 0 || res.Buckets != a.Buckets {
		t.Errorf("unknown pool: %v, %v", res, err)
	}
	for _, bad := range [][2]int{{2, 2}, {-1, 0}, {65, 0}, {0, 1}, {2, -1}} {
		if _, err := ownedBuckets(bad[0], bad[1]); err == nil {
			t.Errorf("shard %d of %d is taken", bad[1], bad[0])
		}
	}
}

func TestNATSRestartInMidStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	o.write(resetOf(e))
	keys := chain(0)
	var seq uint64
	for i := range keys {
		if i%10 == 5 {
			w.restartNATS(false)
			r.match(seq, keys...) // it answers meanwhile
		}
		seq = o.write(show(e, keys[i]))
	}
	r.expect(seq, map[string]string{e: "32/32"}, keys...)
	if r.count("holes_total") != 0 || r.count("stream_resets_total") != 0 {
		t.Error("a restart is taken for a loss")
	}
}

func TestLostStreamIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	for range 5 {
		o.write(resetOf(e), show(e, 1, 2, 3))
	}
	r.expect(6, map[string]string{e: "3/3"}, 1, 2, 3)
	w.restartNATS(true)
	w.eventually("the old stream forgotten", func() bool { return r.count("stream_resets_total") == 1 && r.health.Ready() == nil })
	o = w.owner("b", 3)
	o.claim()
	seq := o.write(resetOf(e), show(e, 1))
	r.expect(seq, map[string]string{e: "1/1"}, 1, 2, 3)
}

func TestMemberIsAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	seq := o.write(resetOf(e))
	watcher, err := fleet.Watch(t.Context(), w.conn, quiet)
	if err != nil {
		t.Fatal(err)
	}
	r := w.startIndex(Config{Instance: "index-0", Shards: 2, Shard: 1})
	w.eventually("the member is ready", func() bool {
		for _, m := range watcher.View().Members {
			if m.Service == "index" && m.Instance == "index-0" && m.Ready {
				return m.Buckets == 0xaaaaaaaaaaaaaaaa && m.Applied == seq && m.Address != ""
			}
		}
		return false
	})
	r.stop()
	w.eventually("the member is gone", func() bool { return len(watcher.View().Members) == 0 })
}

// While the log grows, an answer lies between the log folded to applied and the log folded to begun.
func TestAnswersLieBetweenTheirSequences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	first := o.write(resetOf(e))
	const blocks = 1500
	keys := make([]uint64, blocks)
	for i := range keys {
		keys[i] = uint64(i+1) * 0x9e3779b97f4a7c15
	}
	// One message a block and one writer: the fold to first+n has depth n.
	written := make(chan uint64, 1)
	go func() {
		seq := first
		for _, k := range keys {
			seq = o.write(show(e, k))
		}
		written <- seq
	}()
	asked, between := 0, 0
	for last := uint64(0); last == 0 || r.match(0, keys...).Applied < last; asked++ {
		res := r.match(0, keys...)
		if len(res.Engines) == 0 {
			continue
		}
		if d := first + uint64(res.Engines[0].Gpu); d < res.Applied || d > res.Begun {
			t.Fatalf("depth %d is the fold to %d, but the answer claims %d to %d", res.Engines[0].Gpu, d, res.Applied, res.Begun)
		}
		if res.Applied > first && res.Applied < first+blocks {
			between++
		}
		select {
		case last = <-written:
		default:
		}
	}
	if between == 0 {
		t.Errorf("none of %d answers was given while writing: the test tests nothing", asked)
	}
	r.expect(first+blocks, map[string]string{e: "1500/1500"}, keys...)
}
