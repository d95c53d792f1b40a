package prefix

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkMatchBesideWriter times each Match while one writer applies so many block operations a second: it hides and
// shows again the ends of the chains that are asked for, and other chains, and sweeps. The rate that it reached is
// reported beside the times. It needs two cores.
func BenchmarkMatchBesideWriter(b *testing.B) {
	x, chains := resident(b, 5e6, 16, same)
	for _, load := range []struct {
		name string
		ops  int
	}{{"ops=200k", 200_000}, {"ops=1M", 1_000_000}} {
		b.Run(load.name, func(b *testing.B) {
			var stop atomic.Bool
			var applied int
			var writing time.Duration
			var wg sync.WaitGroup
			start := time.Now()
			wg.Go(func() {
				applied = writeAt(x, load.ops, benchWrites(chains), &stop)
				writing = time.Since(start)
			})
			dst := make([]Depth, 0, 16)
			took := make([]int32, 0, 1<<22)
			for i := 0; b.Loop(); i++ {
				began := time.Now()
				dst = x.Match(chains[i%len(chains)], dst[:0])
				if ns := time.Since(began); len(took) < cap(took) {
					took = append(took, int32(ns))
				}
			}
			stop.Store(true)
			wg.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
			b.ReportMetric(float64(applied)/writing.Seconds(), "ops/s")
			b.ReportMetric(float64(len(chains)), "chains")
			b.ReportMetric(float64(x.Rows()), "rows")
		})
	}
}

// benchWrites are runs for e015 that take the index back to where it was.
func benchWrites(chains [][]uint64) (runs []*Run) {
	shows, hides := readyRuns(1 << 12)
	for i, keys := range chains[:1<<12] {
		tail := keys[benchChain-benchRun:]
		runs = append(runs, hide(tail), shows[i], show(tail), hides[i])
	}
	return runs
}

// writeAt applies so many block operations a second, on absolute deadlines, until stop, and returns how many.
func writeAt(x *Index, ops int, runs []*Run, stop *atomic.Bool) (applied int) {
	start := time.Now()
	for i := 0; !stop.Load() || i%len(runs)%4 != 0; {
		for due := int(time.Since(start).Seconds() * float64(ops)); applied < due; i++ {
			x.Apply(engineID(15), runs[i%len(runs)])
			applied += benchRun
		}
		x.Sweep(1 << 10)
		time.Sleep(time.Until(start.Add(time.Duration(applied+benchRun) * time.Second / time.Duration(ops))))
	}
	return applied
}
