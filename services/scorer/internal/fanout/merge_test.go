package fanout

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
)

// step is one message of the event log: an engine shows one more block of a chain, hides its last one, or goes.
type step struct {
	engine string
	chain  int
	kind   int // show, hide, drop
}

const (
	show = iota
	hide
	drop
)

func key(chain, block int) uint64 { return uint64(chain+1)<<32 | uint64(block) }

// world is the brute-force model: how many blocks of each chain each engine holds.
type world map[string]map[int]int

func (w world) apply(s step) (block int, ok bool) {
	if s.kind == drop {
		delete(w, s.engine)
		return 0, true
	}
	if w[s.engine] == nil {
		if s.kind == hide {
			return 0, false
		}
		w[s.engine] = map[int]int{}
	}
	held := w[s.engine][s.chain]
	if s.kind == hide {
		if held == 0 {
			return 0, false
		}
		w[s.engine][s.chain] = held - 1
		return held - 1, true
	}
	w[s.engine][s.chain] = held + 1
	return held, true
}

// member folds the log up to applied into a real Index, of its own buckets only, and answers.
func member(name string, log []step, buckets uint64, applied int, keys []uint64) answer {
	x, w := prefix.NewIndex(), world{}
	for _, s := range log[:applied] {
		if buckets>>fleet.Bucket(s.engine)&1 == 0 {
			continue
		}
		block, ok := w.apply(s)
		run := prefix.Run{GPU: prefix.Added, Any: prefix.Added, Keys: []uint64{key(s.chain, block)}}
		switch {
		case !ok:
			continue
		case s.kind == drop:
			x.Drop(s.engine)
			continue
		case s.kind == hide:
			run.GPU, run.Any = prefix.Removed, prefix.Removed
		}
		x.Apply(s.engine, &run)
	}
	r := &indexv1.MatchResponse{Buckets: buckets, Applied: uint64(applied), Begun: uint64(applied)}
	for _, d := range x.Match(keys, nil) {
		r.Engines = append(r.Engines, &indexv1.EngineMatch{Engine: d.Engine, Gpu: uint32(d.GPU), Any: uint32(d.Any)})
	}
	return answer{name, r}
}

// The merged answer is, for every bucket, what the log says at the latest sequence of any member that answered for
// the bucket; for 1, 3 and 8 shards, replicas at different sequences and bucket sets that overlap.
func TestMergeIsTheLogAtTheLatestSequence(t *testing.T) {
	for _, shards := range []int{1, 3, 8} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkMerge(t, shards) })
		})
	}
}

func checkMerge(t *rapid.T, shards int) {
	const chains = 2
	log := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		kind := rapid.SampledFrom([]int{show, show, show, show, hide, drop}).Draw(t, "kind")
		return step{fmt.Sprintf("engine-%d", rapid.IntRange(0, 11).Draw(t, "engine")), rapid.IntRange(0, chains-1).Draw(t, "chain"), kind}
	}), 0, 80).Draw(t, "log")
	var keys []uint64
	for block := range rapid.IntRange(0, 6).Draw(t, "blocks") {
		keys = append(keys, key(0, block))
	}
	var answers []answer
	for i := range rapid.IntRange(0, 2*shards).Draw(t, "answers") {
		buckets := residue(shards, i%shards) | rapid.SampledFrom([]uint64{0, residue(2, 0), All}).Draw(t, "more")
		applied := rapid.IntRange(0, len(log)).Draw(t, "applied")
		answers = append(answers, member(fmt.Sprintf("member-%d", i), log, buckets, applied, keys))
	}
	latest := map[int]int{} // by bucket
	for _, a := range answers {
		for b := range fleet.Buckets {
			if a.GetBuckets()>>b&1 == 1 {
				latest[b] = max(latest[b], int(a.GetApplied()))
			}
		}
	}
	want := map[string]int{}
	for b, applied := range latest {
		w := world{}
		for _, s := range log[:applied] {
			w.apply(s)
		}
		for engine, held := range w {
			if fleet.Bucket(engine) == b {
				want[engine] = min(held[0], len(keys))
			}
		}
	}
	result := merge(rapid.Permutation(answers).Draw(t, "order"))
	got := map[string]int{}
	for _, e := range result.Engines {
		if _, twice := got[e.GetEngine()]; twice {
			t.Fatalf("%s is in the result twice", e.GetEngine())
		}
		got[e.GetEngine()] = int(e.GetGpu())
		if e.GetAny() != e.GetGpu() {
			t.Fatalf("%s: any %d, gpu %d", e.GetEngine(), e.GetAny(), e.GetGpu())
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	checkShards(t, result, latest)
}

// checkShards: every bucket covered is in exactly one shard, with the sequence that its engines were taken at.
func checkShards(t *rapid.T, result Result, latest map[int]int) {
	seen := uint64(0)
	for _, s := range result.Shards {
		if s.GetBuckets()&seen != 0 || s.GetBuckets() == 0 {
			t.Fatalf("shard %v after %x", s, seen)
		}
		seen |= s.GetBuckets()
		for b := range fleet.Buckets {
			if s.GetBuckets()>>b&1 == 1 && latest[b] != int(s.GetApplied()) {
				t.Fatalf("bucket %d is said to be at %d, is at %d", b, s.GetApplied(), latest[b])
			}
		}
	}
	if seen != result.Covered || len(latest) != 0 && seen == 0 {
		t.Fatalf("shards have %x, covered is %x", seen, result.Covered)
	}
}

func TestMergeKeepsAllThatAnEngineIsSaidToBe(t *testing.T) {
	e := &indexv1.EngineMatch{Engine: "e", Gpu: 1, Any: 2, Visible: 3, Evicted: true, Generation: 4, LagUs: 5}
	r := merge([]answer{{"m", &indexv1.MatchResponse{Buckets: All, Applied: 6, Begun: 7, Engines: []*indexv1.EngineMatch{e}}}})
	got := r.Engines[0]
	if got.GetEngine() != "e" || got.GetGpu() != 1 || got.GetAny() != 2 || got.GetVisible() != 3 || !got.GetEvicted() ||
		got.GetGeneration() != 4 || got.GetLagUs() != 5 {
		t.Fatalf("got %v", got)
	}
	s := r.Shards[0]
	if s.GetMember() != "m" || s.GetBuckets() != All || s.GetApplied() != 6 || s.GetBegun() != 7 {
		t.Fatalf("got %v", s)
	}
}

func BenchmarkMerge(b *testing.B) {
	var answers []answer
	for i := range 4 {
		r := &indexv1.MatchResponse{Buckets: residue(4, i), Applied: uint64(i)}
		for j := range 400 {
			if id := fmt.Sprintf("engine-%d-%032d", j, j); fleet.Bucket(id)%4 == i {
				r.Engines = append(r.Engines, &indexv1.EngineMatch{Engine: id})
			}
		}
		answers = append(answers, answer{fmt.Sprint(i), r})
	}
	b.ReportAllocs()
	for b.Loop() {
		merge(slices.Clone(answers))
	}
}
