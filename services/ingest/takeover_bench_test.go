package ingest

import (
	"flag"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/kvwire"
)

var takeoverBlocks = flag.Int("takeover-blocks", 10_000, "blocks that each of 64 engines holds in BenchmarkTakeover")

// BenchmarkTakeover kills the owner of 64 engines and measures how long the next one takes, from its start, until it
// knows them all as before.
func BenchmarkTakeover(b *testing.B) {
	const engines, chain = 64, 500
	p := newPlane(b)
	p.log.ends() // its fold would share the processor
	p.times = times{}.withDefaults()
	var all []*engine
	for range engines {
		all = append(all, newEngine(b, 16, kvwire.PublisherOptions{BufferSteps: 4}))
	}
	kill := p.mortal("a", all...)
	for h := 0; h < *takeoverBlocks; h += chain {
		hashes := make([]uint64, chain)
		for i := range hashes {
			hashes[i] = uint64(h + i + 1)
		}
		for _, e := range all {
			e.publish(e.stored(0, hashes...))
		}
		eventually(b, "the batches to be folded", func() bool { return p.count("batches_total") >= float64(engines*(h/chain+1)) })
	}
	eventually(b, "all is published", func() bool { return p.count("unpublished_bytes") == 0 })
	b.ResetTimer()
	for n := range b.N {
		kill()
		began := time.Now()
		kill = p.mortal(string(rune('b'+n)), all...)
		eventually(b, "all engines are known", func() bool { return p.count("resumed_seconds") == engines })
		b.ReportMetric(time.Since(began).Seconds(), "s/takeover")
		if n := p.count("resets_total") + p.count("engines", "state=partial"); n != 0 {
			b.Fatalf("%v engines were begun anew or are partial", n)
		}
	}
	b.StopTimer()
	for _, e := range all {
		if told := p.foldFrom(e, p.position(e))[e.id]; told == nil || told.Cache.Stats().Copies != *takeoverBlocks {
			b.Errorf("%s is not in the log as it was", e.id)
		}
	}
}
