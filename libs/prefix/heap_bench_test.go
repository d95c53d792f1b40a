package prefix

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
)

// held fills an index with so many rows in chains of 100 blocks, and returns the (block, engine) entries. With zipf a
// tenth of the chains have more than one holder, up to all of 256 engines, the r-th most popular 1/r of them; then sets
// are shared. Else holders is a number of engines that hold everything.
func held(rows int, holders string) (x *Index, entries int) {
	const length = 100
	engines, chains := 256, rows/length
	if holders != "zipf" {
		engines, _ = strconv.Atoi(holders)
	}
	x = NewIndex()
	for c := range chains {
		run, n := show(chain(uint64(c)+1, length)), engines
		if holders == "zipf" {
			n = max(1, min(engines, chains/10/(c+1)))
		}
		for e := range n {
			x.Apply(engineID((c+e)%engines), run)
		}
		entries += n * length
	}
	return x, entries
}

// BenchmarkMemory reports the heap after a collection for each (block, engine) entry.
func BenchmarkMemory(b *testing.B) {
	for _, holders := range []string{"1", "16", "zipf"} {
		for _, millions := range []int{1, 5, 20} {
			b.Run(fmt.Sprintf("holders=%s/blocks=%dM", holders, millions), func(b *testing.B) {
				before := heap()
				x, entries := held(millions*1e6, holders)
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

// BenchmarkGC is a full collection beside an index.
func BenchmarkGC(b *testing.B) {
	for _, millions := range []int{5, 20} {
		b.Run(fmt.Sprintf("blocks=%dM", millions), func(b *testing.B) {
			x, _ := held(millions*1e6, "1")
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
