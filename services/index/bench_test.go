package index

import (
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
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

// BenchmarkRestart is a restart of a shard: 64 engines as snapshots, and a twentieth of their blocks again as deltas, in a
// file store of a NATS server in this process. RESTART_BLOCKS is how many blocks there are; 10 M by default.
func BenchmarkRestart(b *testing.B) {
	blocks := 10_000_000
	if n, err := strconv.Atoi(os.Getenv("RESTART_BLOCKS")); err == nil {
		blocks = n
	}
	w := newWorld(b)
	twin := w.startIndex(Config{})
	owners := w.owners(fleet.Buckets)
	last := w.fill(owners, blocks/fleet.Buckets)
	twin.match(last)
	want := twin.states()
	twin.stop()
	runtime.GC()
	took := time.Duration(0)
	for b.Loop() {
		begun := time.Now()
		r := w.startIndex(Config{})
		took += time.Since(begun)
		b.StopTimer()
		if got := r.states(); !maps.Equal(got, want) || len(got) != fleet.Buckets {
			b.Fatalf("%d engines after the restart are not what %d were before it", len(got), len(want))
		}
		r.stop()
		b.StartTimer()
	}
	b.ReportMetric(took.Seconds()/float64(b.N), "ready_s")
	b.ReportMetric(float64(blocks), "blocks")
	b.ReportMetric(0, "ns/op")
}

// fill publishes for each owner an engine with so many blocks in rows of 256: a reset, a snapshot in parts, and deltas.
func (w *world) fill(owners []*owner, blocks int) uint64 {
	const row, part = 256, 48
	var last atomic.Uint64
	var wg sync.WaitGroup
	for _, o := range owners {
		wg.Go(func() {
			e := engineIn(o.bucket, 0)
			o.claim()
			generation := o.write(resetOf(e))
			rnd, sum := rand.New(rand.NewPCG(1, uint64(o.bucket))), prefix.Sum{}
			draw := func() *eventsv1.Run {
				run := runOf(shown, shown)
				run.BlockSize = 16
				for range row {
					run.Keys, run.Hashes = append(run.Keys, rnd.Uint64()), append(run.Hashes, rnd.Uint64())
				}
				return run
			}
			var parts []*eventsv1.Snapshot
			for n := 0; n < blocks; n += row {
				if n%(row*part) == 0 {
					parts = append(parts, &eventsv1.Snapshot{Part: uint32(len(parts) + 1), Generation: generation})
				}
				run := draw()
				sum.Add(&prefix.Run{GPU: prefix.Added, Any: prefix.Added, Keys: run.Keys})
				parts[len(parts)-1].Runs = append(parts[len(parts)-1].Runs, run)
			}
			for i, p := range parts {
				if p.Parts = uint32(len(parts)); i == len(parts)-1 {
					p.Count, p.Digest = uint64(sum.Count), sum.Digest
				}
				o.write(&eventsv1.Part{Engine: e, Body: &eventsv1.Part_Snapshot{Snapshot: p}})
			}
			seq := uint64(0)
			for n := 0; n < blocks/20; n += row {
				seq = o.write(deltaOf(e, draw()))
			}
			for now := last.Load(); now < seq && !last.CompareAndSwap(now, seq); now = last.Load() {
			}
		})
	}
	wg.Wait()
	return last.Load()
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
