package prefix

import (
	"fmt"
	"runtime"
	"testing"
)

// held fills an index with so many rows, in chains of 100 blocks that holders tells the number of holders of, and
// returns the (block, engine) entries. share is where among all chains a chain stands, 0 to 1.
func held(rows int, holders func(share float64) int) (x *Index, entries int) {
	const length = 100
	x = NewIndex()
	for c := range rows / length {
		run := show(chain(uint64(c)+1, length))
		n := holders(float64(c) / float64(rows/length))
		for e := range n {
			x.Apply(engineID((c+e)%256), run)
		}
		entries += n * length
	}
	return x, entries
}

// benchHolders: in zipf a tenth of the chains have more than one holder, up to all of 256 engines, the r-th most popular
// 1/r of them; then sets are shared.
func benchHolders() map[string]func(float64) int {
	return map[string]func(float64) int{
		"1":    func(float64) int { return 1 },
		"16":   func(float64) int { return 16 },
		"zipf": func(share float64) int { return max(1, int(min(256, .1/max(share, 1e-9)))) },
	}
}

// BenchmarkMemory reports the heap after a collection for each (block, engine) entry.
func BenchmarkMemory(b *testing.B) {
	for _, holders := range []string{"1", "16", "zipf"} {
		for _, millions := range []int{1, 5, 20} {
			b.Run(fmt.Sprintf("holders=%s/blocks=%dM", holders, millions), func(b *testing.B) {
				before := heap()
				x, entries := heldBy(holders, millions)
				used := 0
				for b.Loop() {
					used = heap() - before
				}
				b.ReportMetric(float64(used)/float64(entries), "B/entry")
				b.ReportMetric(float64(x.Rows()), "rows")
				runtime.KeepAlive(x)
			})
		}
	}
}

// heldBy is held; the 1 and 16 holders are the same engines for all chains.
func heldBy(holders string, millions int) (*Index, int) {
	return held(millions*1_000_000, benchHolders()[holders])
}

// BenchmarkGC is a full collection beside an index.
func BenchmarkGC(b *testing.B) {
	for _, millions := range []int{5, 20} {
		b.Run(fmt.Sprintf("blocks=%dM", millions), func(b *testing.B) {
			x, _ := heldBy("1", millions)
			runtime.GC()
			b.ResetTimer()
			for b.Loop() {
				runtime.GC()
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N), "GC-ms")
			b.ReportMetric(float64(x.Rows()), "rows")
			runtime.KeepAlive(x)
		})
	}
}
