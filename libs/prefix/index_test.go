package prefix

import (
	"fmt"
	"slices"
	"testing"
)

// chain makes n keys that are like chain states.
func chain(seed uint64, n int) []uint64 {
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = finish(seed<<32 + uint64(i))
	}
	return keys
}

func show(keys []uint64) *Run { return &Run{Copy: Added, GPU: Added, Any: Added, Keys: keys} }

func hide(keys []uint64) *Run {
	keys = slices.Clone(keys)
	slices.Reverse(keys)
	return &Run{Copy: Removed, GPU: Removed, Any: Removed, Keys: keys}
}

// toCPU and fromCPU move keys between the sets: any stays as it is.
func toCPU(keys []uint64) *Run {
	keys = slices.Clone(keys)
	slices.Reverse(keys)
	return &Run{Copy: Removed, GPU: Removed, Keys: keys}
}

// Depths of long chains are exact for any number of engines, tiers and distinct depths.
func TestMatchDepths(t *testing.T) {
	for _, engines := range []int{1, 3, 32, 64, 65, 200} {
		pick := picker(uint64(engines))
		x := NewIndex()
		keys := chain(uint64(engines), 700)
		var want []Depth
		for i := range engines {
			id := fmt.Sprintf("e%03d", i)
			d := Depth{Engine: id, Any: pick(len(keys) + 1)}
			if pick(3) == 0 {
				d.Any = []int{0, 1, len(keys)}[pick(3)]
			}
			d.GPU = d.Any
			x.Apply(id, show(keys[:d.Any]))
			if engines != 64 && d.Any > 0 && pick(2) == 0 {
				d.GPU = pick(d.Any + 1)
				x.Apply(id, toCPU(keys[d.GPU:d.Any]))
			}
			want = append(want, d)
		}
		for n := 0; n <= len(keys); n += 1 + pick(9) {
			cut := slices.Clone(want)
			for i := range cut {
				cut[i].GPU, cut[i].Any = min(cut[i].GPU, n), min(cut[i].Any, n)
			}
			if got := x.Match(keys[:n], nil); !slices.Equal(got, cut) {
				t.Fatalf("%d engines, %d keys: %v, want %v", engines, n, got, cut)
			}
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	for _, engines := range []int{16, 100} {
		x := NewIndex()
		keys := chain(1, 500)
		for i := range engines {
			x.Apply(fmt.Sprint(i), show(keys[:500-i]))
			x.Apply(fmt.Sprint(i), toCPU(keys[400-i:500-i]))
		}
		dst := make([]Depth, 0, engines)
		if n := testing.AllocsPerRun(100, func() { dst = x.Match(keys, dst[:0]) }); n != 0 {
			t.Errorf("%d engines: %v allocations", engines, n)
		}
	}
}

// Numbers of dropped engines are used again after a sweep, and not before; nothing of a past life ever answers.
func TestDropSweepReuse(t *testing.T) {
	x := NewIndex()
	keys := chain(1, 300)
	for life := range 500 {
		id := fmt.Sprint("pod-", life)
		x.Apply(id, show(keys[:1+life%300]))
		if got := x.Match(keys, nil); len(got) != 1 || got[0].GPU != 1+life%300 {
			t.Fatalf("life %d: %v", life, got)
		}
		x.Drop(id)
		if got := x.Match(keys, nil); len(got) != 0 {
			t.Fatalf("life %d: dropped, but %v", life, got)
		}
		for n := 0; !x.Sweep(100); n++ {
			if n > 10_000 {
				t.Fatal("the sweep does not end")
			}
		}
		if x.Rows() != 0 {
			t.Fatalf("life %d: %d rows left", life, x.Rows())
		}
	}
	if n := x.holders.numbers; n > 1 {
		t.Errorf("%d holder numbers used, want 1", n)
	}
}

func TestHideAndShowTwice(t *testing.T) {
	x := NewIndex()
	keys := chain(1, 10)
	x.Apply("e", hide(keys))
	x.Apply("e", show(keys[:5]))
	x.Apply("e", show(keys))
	x.Apply("e", hide(keys[8:]))
	x.Apply("e", hide(keys[8:]))
	i, _ := x.Engine("e")
	if i.VisibleGPU != 8 || i.VisibleAny != 8 || i.Missing != 12 || i.Surplus != 5 || !i.Evicted {
		t.Errorf("%+v", i)
	}
	x.Apply("e", hide(keys[:8]))
	if i, _ = x.Engine("e"); i.Digest != 0 || x.Rows() != 0 {
		t.Errorf("%+v, %d rows", i, x.Rows())
	}
}
