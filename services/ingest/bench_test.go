package ingest

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// BenchmarkReceivedToVisible publishes the batches of 8 engines at a steady pace through real ZeroMQ and NATS, and
// reports the index's own histogram of the time from ingest to Match. Every operation is one batch of 64 blocks, half
// stored and half removed.
func BenchmarkReceivedToVisible(b *testing.B) {
	for _, opsPerSecond := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("blocks/s=%d", opsPerSecond), func(b *testing.B) { receivedToVisible(b, opsPerSecond) })
	}
}

func receivedToVisible(b *testing.B, opsPerSecond int) {
	const engines, blocks = 8, 32
	p := newPlane(b)
	p.log.ends() // its fold would share the processor
	p.times = times{}.withDefaults()
	var all []*engine
	for range engines {
		all = append(all, newEngine(b, 16, kvwire.PublisherOptions{}))
	}
	p.ingest("a", all...)
	x, registry := p.indexWith()
	next := make([]uint64, engines)
	publish := func(i int) {
		e, n := all[i%engines], &next[i%engines]
		var hashes, old []uint64
		for range blocks {
			*n++
			hashes, old = append(hashes, *n), append(old, *n-blocks)
		}
		events := []kvevent.Event{e.stored(0, hashes...)}
		if *n > blocks {
			events = append(events, removed(old...))
		}
		e.publish(events...)
	}
	for i := range engines {
		publish(i)
		p.indexHolds(x, all[i], 1, 1)
	}
	before := lag(b, registry)
	pause := time.Second * 2 * blocks / time.Duration(opsPerSecond)
	b.ResetTimer()
	began := time.Now()
	for i := range b.N {
		time.Sleep(time.Until(began.Add(time.Duration(i) * pause)))
		publish(i)
	}
	for i := range min(engines, b.N) {
		p.indexHolds(x, all[i], 1, next[i]-blocks+1)
	}
	b.StopTimer()
	after := lag(b, registry)
	b.ReportMetric(float64(b.N)*2*blocks/b.Elapsed().Seconds(), "blocks/s")
	b.ReportMetric(1e3*quantile(before, after, .5), "p50-ms")
	b.ReportMetric(1e3*quantile(before, after, .99), "p99-ms")
}

// lag reads the index's histogram.
func lag(b *testing.B, registry *prometheus.Registry) *dto.Histogram {
	b.Helper()
	families, err := registry.Gather()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "warmpath_index_lag_seconds" {
			return f.Metric[0].GetHistogram()
		}
	}
	b.Fatal("no histogram of the lag")
	return nil
}

// quantile of what came between two readings, interpolated within its bucket.
func quantile(before, after *dto.Histogram, q float64) float64 {
	count := func(i int) float64 {
		return float64(after.Bucket[i].GetCumulativeCount() - before.Bucket[i].GetCumulativeCount())
	}
	rank := q * float64(after.GetSampleCount()-before.GetSampleCount())
	low, below := 0.0, 0.0
	for i := range after.Bucket {
		high := after.Bucket[i].GetUpperBound()
		if n := count(i); n >= rank {
			return low + (high-low)*(rank-below)/max(n-below, 1)
		}
		low, below = high, count(i)
	}
	return low
}
