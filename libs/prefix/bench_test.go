package prefix

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// resident fills an index with 4,096 chains of so many keys, of which four at a time share 70 %, held by all engines to
// depths that depth tells.
func resident(b *testing.B, length, engines int, depth func(engine int) int) (*Index, [][]uint64) {
	b.Helper()
	x := NewIndex()
	chains := make([][]uint64, 0, 4096)
	for i := range uint64(4096) {
		keys := chain(i+1, length)
		if i%4 != 0 {
			copy(keys[:length*7/10], chains[i/4*4])
		}
		chains = append(chains, keys)
	}
	for i, keys := range chains {
		for e := range engines {
			d := depth(e)
			from := 0
			if i%4 != 0 {
				from = min(d, length*7/10)
			}
			x.Apply(fmt.Sprintf("e%03d", e), show(keys[from:d]))
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
		x, chains := resident(b, 500, 16, same)
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/holders=16/depths=distinct/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 500, 16, distinct)
		benchMatch(b, x, chains)
	})
	b.Run("miss", func(b *testing.B) {
		x, chains := resident(b, 500, 16, same)
		for i := range chains {
			chains[i] = chain(uint64(i)+1<<20, 500)
		}
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/engines=64/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 500, 64, func(e int) int { return 500 - e*7 })
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/engines=256/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 500, 256, func(e int) int { return 500 - e })
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
		e, x := NewEngine(EngineOptions{Pool: "p", BlockSize: 16, Blocks: chains * benchBlocks}), NewIndex()
		for b.Loop() { // the first time round tables grow
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

// BenchmarkDropEngine drops one of 16 engines that hold 1M rows each, frees its rows and brings it back.
func BenchmarkDropEngine(b *testing.B) {
	x, chains := resident(b, 500, 16, func(int) int { return 500 })
	rows := x.Rows()
	var drop, sweep time.Duration
	n := 0
	for b.Loop() {
		id := fmt.Sprintf("e%03d", n%16)
		start := time.Now()
		x.Drop(id)
		dropped := time.Now()
		for !x.Sweep(1 << 16) {
		}
		drop, sweep = drop+dropped.Sub(start), sweep+time.Since(dropped)
		for _, keys := range chains {
			x.Apply(id, show(keys))
		}
		n++
	}
	b.ReportMetric(float64(drop.Nanoseconds())/float64(n), "ns/drop")
	b.ReportMetric(float64(sweep.Nanoseconds())/float64(n)/float64(rows), "ns/row-swept")
	b.ReportMetric(float64(len(chains)), "chains")
	b.ReportMetric(float64(rows), "rows")
}
