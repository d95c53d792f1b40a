package index

import (
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// load writes the logs of engines, one a bucket, each message storing the next blocks of a chain. Every owner waits
// for pace between two messages; 0 is as fast as acknowledgements come.
func (w *world) load(owners []*owner, messages, blocks int, pace time.Duration) (last uint64) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, o := range owners {
		wg.Add(1)
		go func() {
			defer wg.Done()
			e := engineIn(o.bucket, 0)
			if o.counter == 0 {
				o.claim()
				o.write(resetOf(e))
			}
			due := time.Now().Add(pace * time.Duration(o.bucket) / fleet.Buckets) // not all at once
			var seq uint64
			for range messages {
				time.Sleep(time.Until(due))
				due = due.Add(pace)
				keys := make([]uint64, blocks)
				for k := range keys {
					keys[k] = (uint64(o.bucket)<<40 + uint64(int(o.counter)*blocks+k)) * 0x9e3779b97f4a7c15
				}
				run := runOf(shown, shown, keys...)
				run.Hashes = keys
				seq = o.write(deltaOf(e, run))
			}
			mu.Lock()
			last = max(last, seq)
			mu.Unlock()
		}()
	}
	wg.Wait()
	return last
}

func (w *world) owners(n int) []*owner {
	all := make([]*owner, n)
	for b := range all {
		all[b] = w.owner("a", b)
	}
	return all
}

// BenchmarkCatchUp is a restart: 16 engines, 100 blocks a message, NATS in this process. One operation is one block.
func BenchmarkCatchUp(b *testing.B) {
	const engines, blocks = 16, 100
	w := newWorld(b)
	w.load(w.owners(engines), max(b.N/blocks/engines, 1), blocks, 0)
	b.ResetTimer()
	w.startIndex(Config{})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mblocks/s")
}

// BenchmarkLive is 64 engines with 100,000 block operations a second together for 5 s: received -> visible.
func BenchmarkLive(b *testing.B) {
	w := newWorld(b)
	owners := w.owners(fleet.Buckets)
	w.load(owners, 1, 1, 0)
	r := w.startIndex(Config{})
	for b.Loop() {
		r.match(w.load(owners, 500, 16, 10*time.Millisecond))
	}
	p50, p99 := r.lag(.5), r.lag(.99)
	b.ReportMetric(p50*1e3, "p50-ms(below)")
	b.ReportMetric(p99*1e3, "p99-ms(below)")
}

// lag is an upper bound of a quantile of warmpath_index_lag_seconds: the edge of its bucket.
func (r *replica) lag(q float64) float64 {
	families, err := r.registry.Gather()
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "warmpath_index_lag_seconds" {
			continue
		}
		h := f.Metric[0].GetHistogram()
		for _, bucket := range h.Bucket {
			if float64(bucket.GetCumulativeCount()) >= q*float64(h.GetSampleCount()) {
				return bucket.GetUpperBound()
			}
		}
	}
	return -1
}
