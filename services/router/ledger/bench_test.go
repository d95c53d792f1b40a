package ledger

import (
	"fmt"
	"testing"
	"time"
)

func BenchmarkReserve(b *testing.B) {
	for _, n := range []int{8, 100} {
		b.Run(fmt.Sprintf("engines=%d/keys=500", n), func(b *testing.B) {
			now := time.Unix(50_000, 0)
			p := warmPool(now)
			view := viewOf(n)
			held := map[string]uint32{}
			for id := range view.Engines {
				held[id] = 400
			}
			q := wishOf(keysOf(1, 500), held, true)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Millisecond)
				r, _ := p.Reserve(view, q, now)
				r.FirstByte(now)
				r.Release(now, true, true)
			}
		})
	}
}
