package prefix

import (
	"runtime"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Memory a block: an engine's fold, and an index with one holder and with sixteen. Tables double or grow by half, so
// it is measured over a whole doubling.
func TestMemoryPerBlock(t *testing.T) {
	e, before := NewEngine(EngineOptions{BlockSize: 16, Blocks: 1 << 20}), heap()
	ev := kvevent.Event{Kind: kvevent.Stored, BlockSize: 16, Tokens: make([]uint32, 16), Hashes: []uint64{0}}
	x, keys := NewIndex(), []uint64{}
	var sum, sums float64
	for i := range uint64(1 << 17) {
		ev.Hashes[0], ev.Tokens[0] = finish(i), uint32(i)
		for _, r := range e.Fold(&ev, nil) {
			keys = append(keys, r.Keys...)
		}
		if n := i + 1; n >= 1<<16 && n%(1<<13) == 0 {
			sum += float64(cap(e.blocks)*48+4*len(e.names.slots)+4*len(e.keys.slots)) / float64(n)
			sums++
		}
	}
	got := float64(heap()-before-8*cap(keys)) / (1 << 17)
	t.Logf("engine: %.1f B a block now, %.1f on average over a doubling", got, sum/sums)
	if sum/sums > 68 || got > 76 {
		t.Errorf("engine: %.1f B a block, %.1f on average; want at most 68", got, sum/sums)
	}
	before = heap()
	x.Apply("e0", show(keys))
	one := float64(heap()-before) / float64(len(keys))
	for i := range 15 {
		x.Apply(string(rune('a'+i)), show(keys))
	}
	sixteen := float64(heap()-before) / float64(len(keys)) / 16
	t.Logf("index: %.1f B a block of one engine, %.2f of sixteen", one, sixteen)
	if one > 40 || sixteen > 3 {
		t.Errorf("index: %.1f B a block of one engine, %.2f of sixteen; want 40 and 3", one, sixteen)
	}
	runtime.KeepAlive(e)
	runtime.KeepAlive(x)
}
