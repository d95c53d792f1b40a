package prefix

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const benchChain = 500 // blocks

// engineID names the engines of benchmarks.
func engineID(e int) string { return fmt.Sprintf("e%03d", e) }

// resident fills an index with about so many rows: chains of which four at a time share 70 %, held by all engines to
// depths that depth tells. 4,096 of the chains come back, in random order: so many that their rows are not at hand, so
// few that their keys are, as those of a request just received.
func resident(b *testing.B, rows, engines int, depth func(engine int) int) (*Index, [][]uint64) {
	b.Helper()
	const shared = benchChain * 7 / 10
	x := NewIndex()
	chains := make([][]uint64, 0, max(4100, rows/(4*benchChain-3*shared)*4))
	for i := range uint64(cap(chains)) {
		keys := chain(i+1, benchChain)
		if i%4 != 0 {
			copy(keys[:shared], chains[i/4*4])
		}
		chains = append(chains, keys)
		for e := range engines {
			d, from := depth(e), 0
			if i%4 != 0 {
				from = min(d, shared)
			}
			x.Apply(engineID(e), show(keys[from:d]))
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(chains), func(i, j int) { chains[i], chains[j] = chains[j], chains[i] })
	return x, slices.Clone(chains[:4096])
}

func same(int) int       { return benchChain }
func distinct(e int) int { return benchChain - e*29 }

// strangers are chains that no index holds.
func strangers(n int) (chains [][]uint64) {
	for i := range n {
		chains = append(chains, chain(uint64(i)+1<<24, benchChain))
	}
	return chains
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
	b.Run("chain=500/holders=16/depths=same/resident=5M", func(b *testing.B) {
		x, chains := resident(b, 5e6, 16, same)
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/holders=16/depths=distinct/resident=5M", func(b *testing.B) {
		x, chains := resident(b, 5e6, 16, distinct)
		benchMatch(b, x, chains)
	})
	b.Run("miss", func(b *testing.B) {
		x, chains := resident(b, 5e6, 16, same)
		benchMatch(b, x, strangers(len(chains)))
	})
	b.Run("chain=500/engines=64/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 1e6, 64, func(e int) int { return benchChain - e*7 })
		benchMatch(b, x, chains)
	})
	b.Run("chain=500/engines=256/resident=1M", func(b *testing.B) {
		x, chains := resident(b, 1e6, 256, func(e int) int { return benchChain - e })
		benchMatch(b, x, chains)
	})
}

// BenchmarkMatchParallel is BenchmarkMatch on all cores at once: compare -cpu 1,2,4. One operation is one Match.
func BenchmarkMatchParallel(b *testing.B) {
	for name, depth := range map[string]func(int) int{"same": same, "distinct": distinct} {
		var x *Index
		var chains [][]uint64
		b.Run("chain=500/holders=16/depths="+name+"/resident=5M", func(b *testing.B) {
			if x == nil {
				x, chains = resident(b, 5e6, 16, depth)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				dst := make([]Depth, 0, 256)
				for i := rand.IntN(len(chains)); pb.Next(); i++ {
					dst = x.Match(chains[i%len(chains)], dst[:0])
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mmatch/s")
			b.ReportMetric(float64(len(chains)), "chains")
			b.ReportMetric(float64(x.Rows()), "rows")
		})
	}
}

const benchRun = 32 // keys of one run

// readyRuns are runs that show and hide n stretches of 32 keys each, of which none is shown.
func readyRuns(n int) (shows, hides []*Run) {
	for i := range n {
		keys := chain(uint64(i)+1<<25, benchRun)
		shows, hides = append(shows, show(keys)), append(hides, hide(keys))
	}
	return shows, hides
}

// BenchmarkApply applies ready runs of 32 keys to an index of 5M rows and more: what an index shard does for each block
// operation of the log. One operation is one run; the tables have grown before.
func BenchmarkApply(b *testing.B) {
	const runs = 1 << 15
	var x *Index
	shows, hides := readyRuns(runs)
	all := func(of []*Run) {
		for _, r := range of {
			x.Apply("e000", r)
		}
	}
	begin := func(b *testing.B) {
		if x == nil {
			x, _ = resident(b, 4e6, 1, same)
		}
		all(shows)
		all(hides)
		b.ReportAllocs()
		b.ResetTimer()
	}
	end := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchRun), "ns/block")
		b.ReportMetric(runs, "chains")
		b.ReportMetric(float64(x.Rows()), "rows")
		b.StopTimer()
		all(hides) // what is shown; the rest is counted as missing
	}
	phase := func(timed, back []*Run) func(b *testing.B) {
		return func(b *testing.B) {
			begin(b)
			all(back)
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				if i == runs {
					b.StopTimer()
					all(back)
					b.StartTimer()
					i = 0
				}
				x.Apply("e000", timed[i])
			}
			end(b)
		}
	}
	b.Run("store", phase(shows, hides))
	b.Run("remove", phase(hides, shows))
	b.Run("mixed", func(b *testing.B) { // half are shown; each operation shows another one or hides one
		begin(b)
		all(shows[:runs/2])
		shown := [runs]bool{}
		for i := range runs / 2 {
			shown[i] = true
		}
		r := rand.New(rand.NewPCG(1, 4))
		b.ResetTimer()
		for b.Loop() {
			i := r.IntN(runs)
			if shown[i] = !shown[i]; shown[i] {
				x.Apply("e000", shows[i])
			} else {
				x.Apply("e000", hides[i])
			}
		}
		end(b)
	})
}

// BenchmarkDropEngine drops one of 16 engines that hold 1M rows each and frees its rows. One operation is both.
func BenchmarkDropEngine(b *testing.B) {
	x, chains := resident(b, 1e6, 16, same)
	rows := x.Rows()
	dst := make([]Depth, 0, 16)
	var drop, sweep time.Duration
	n := 0
	for b.Loop() {
		id := engineID(n % 16)
		start := time.Now()
		x.Drop(id)
		dropped := time.Now()
		if dst = x.Match(chains[0], dst[:0]); len(dst) != 15 {
			b.Fatal("dropped, but in the answer")
		}
		swept := time.Now()
		for !x.Sweep(1 << 16) {
		}
		drop, sweep = drop+dropped.Sub(start), sweep+time.Since(swept)
		b.StopTimer()
		for _, keys := range chains {
			x.Apply(id, show(keys))
		}
		b.StartTimer()
		n++
	}
	b.ReportMetric(float64(drop.Nanoseconds())/float64(n), "ns/drop")
	b.ReportMetric(float64(sweep.Nanoseconds())/float64(n)/float64(rows), "ns/row-swept")
	b.ReportMetric(float64(len(chains)), "chains")
	b.ReportMetric(float64(rows), "rows")
}
