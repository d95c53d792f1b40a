package prefix

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// resident fills an index with about n rows: chains of so many keys, held by all engines to depths that depth tells.
func resident(b *testing.B, rows, length, engines int, depth func(engine int) int) (*Index, [][]uint64) {
	b.Helper()
	x := NewIndex()
	chains := make([][]uint64, 0, rows/length)
	for range max(4096, rows/length) {
		chains = append(chains, chain(uint64(len(chains))+1, length))
	}
	for _, keys := range chains {
		for e := range engines {
			x.Apply(fmt.Sprintf("e%03d", e), show(keys[:depth(e)]))
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(chains), func(i, j int) { chains[i], chains[j] = chains[j], chains[i] })
	return x, chains
}

func benchMatch(b *testing.B, x *Index, chains [][]uint64) {
	dst := make([]Depth, 0, 256)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		dst = x.Match(chains[i%len(chains)], dst[:0])
	}
	b.ReportMetric(float64(len(chains)), "chains")
	b.ReportMetric(float64(x.Rows()), "rows")
}

func BenchmarkMatch(b *testing.B) {
	same := func(int) int { return 500 }
	distinct := func(e int) int { return 500 - e*29 }
	b.Run("chain=500/holders=16/depths=same/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 1_000_000, 500, 16, same)
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/holders=16/depths=distinct/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 1_000_000, 500, 16, distinct)
		benchMatch(b, x, chains)
	})
	b.Run("miss", func(b *testing.B) {
		x, chains := resident(b, 1_000_000, 500, 16, func(int) int { return 250 })
		for i := range chains {
			chains[i] = chain(uint64(i)+1<<20, 500)
		}
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/engines=64/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 1_000_000, 500, 64, func(e int) int { return 500 - e*7 })
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/engines=256/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 1_000_000, 500, 256, func(e int) int { return 500 - e })
		benchMatch(b, x, chains)
	})
}

const benchBlocks = 32 // of one event

// benchEvents makes events of chains of 32 blocks that an engine stores, and those that remove them, tail first.
func benchEvents(chains int) (store, remove []kvevent.Event) {
	r := rand.New(rand.NewPCG(1, 3))
	for range chains {
		s := kvevent.Event{Kind: kvevent.Stored, BlockSize: 16}
		for range benchBlocks {
			s.Hashes = append(s.Hashes, r.Uint64())
			for range 16 {
				s.Tokens = append(s.Tokens, r.Uint32N(150_000))
			}
		}
		store = append(store, s)
		for i := range benchBlocks {
			remove = append(remove, kvevent.Event{Kind: kvevent.Removed, Hashes: s.Hashes[benchBlocks-1-i:][:1]})
		}
	}
	r.Shuffle(len(store), func(i, j int) { store[i], store[j] = store[j], store[i] })
	return store, remove
}

// BenchmarkApply folds events in an Engine, tokens hashed, and applies its runs to an Index; times are for a block.
func BenchmarkApply(b *testing.B) {
	const chains = 8192
	store, remove := benchEvents(chains)
	fold := func(e *Engine, x *Index, evs []kvevent.Event, runs []Run) []Run {
		runs = runs[:0]
		for i := range evs {
			runs = e.Fold(&evs[i], runs)
		}
		for i := range runs {
			x.Apply("e", &runs[i])
		}
		return runs
	}
	phases := func(b *testing.B, timed func(stores bool) bool) {
		var spent time.Duration
		blocks := 0
		var runs []Run
		for b.Loop() {
			e, x := NewEngine(EngineOptions{Pool: "p", BlockSize: 16, Blocks: chains * benchBlocks}), NewIndex()
			for _, phase := range []bool{true, false} {
				evs, step := store, 1
				if !phase {
					evs, step = remove, benchBlocks
				}
				start := time.Now()
				for i := 0; i+step <= len(evs); i += step {
					runs = fold(e, x, evs[i:i+step], runs)
				}
				if timed(phase) {
					spent += time.Since(start)
					blocks += chains * benchBlocks
				}
			}
		}
		b.ReportMetric(float64(spent.Nanoseconds())/float64(blocks), "ns/block")
		b.ReportMetric(float64(chains), "chains")
		b.ReportMetric(float64(chains*benchBlocks), "rows")
	}
	b.Run("store", func(b *testing.B) { phases(b, func(stores bool) bool { return stores }) })
	b.Run("remove", func(b *testing.B) { phases(b, func(stores bool) bool { return !stores }) })
	b.Run("mixed", func(b *testing.B) { phases(b, func(bool) bool { return true }) })
}

// BenchmarkApplyIndex applies ready runs: what an index shard does for each block operation of the log.
func BenchmarkApplyIndex(b *testing.B) {
	const length, chains = 32, 32768
	var shows, hides []*Run
	for i := range uint64(chains) {
		keys := chain(i+1, length)
		shows, hides = append(shows, show(keys)), append(hides, hide(keys))
	}
	x, ops := NewIndex(), 0
	for b.Loop() {
		for _, runs := range [][]*Run{shows, hides} {
			for _, r := range runs {
				x.Apply("e", r)
			}
			ops += chains * length
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(ops), "ns/block")
	b.ReportMetric(chains, "chains")
	b.ReportMetric(chains*length, "rows")
}

// BenchmarkDropEngine drops one of 16 engines that hold all of 1M rows, and brings it back unseen.
func BenchmarkDropEngine(b *testing.B) {
	x, chains := resident(b, 1_000_000, 244, 16, func(int) int { return 244 })
	for i := 0; b.Loop(); i++ {
		x.Drop(fmt.Sprintf("e%03d", i%16))
		b.StopTimer()
		x.Apply(fmt.Sprintf("e%03d", i%16), show(chains[i%len(chains)]))
		if i%8 == 7 {
			for !x.Sweep(1 << 20) {
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(chains)), "chains")
	b.ReportMetric(float64(x.Rows()), "rows")
}
