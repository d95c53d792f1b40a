package prefix

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// Faults between Engine and Index do not go unseen.
func TestModelFindsFaults(t *testing.T) {
	type fault func(r *Run) bool // changes the run, or returns false to lose it
	for name, f := range map[string]fault{
		"a hide is lost":         func(r *Run) bool { return r.GPU != Removed },
		"a show is lost":         func(r *Run) bool { return r.Any != Added || len(r.Keys)%5 != 1 },
		"a clear is lost":        func(r *Run) bool { return !r.Clear },
		"the last key is lost":   func(r *Run) bool { r.Keys = r.Keys[:len(r.Keys)-len(r.Keys)/3]; return true },
		"tiers are mixed up":     func(r *Run) bool { r.GPU, r.Any = r.Any, r.GPU; return true },
		"any follows gpu always": func(r *Run) bool { r.Any = r.GPU; return true },
	} {
		d := newDrive(t, picker(3), driven()["tiers"])
		d.broken = func(runs []Run) (kept []Run) {
			for _, r := range runs {
				if f(&r) {
					kept = append(kept, r)
				}
			}
			return kept
		}
		if d.run(2000) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
}

// Nor do faults within an Engine: in its tables, in what it hashes ahead, in what it remembers of its life.
func TestModelFindsEngineFaults(t *testing.T) {
	for name, spoil := range map[string]func(e *Engine){
		"twins do not know of one another": func(e *Engine) {
			for i := range e.blocks {
				e.blocks[i].flags &^= twin
			}
		},
		"a slot lies farther from home than it says": func(e *Engine) {
			for i, s := range e.names.slots {
				if s != 0 {
					e.names.slots[i] ^= 1 << away
					return
				}
			}
		},
		"a slot has another tag": func(e *Engine) {
			for i, s := range e.keys.slots {
				if s != 0 {
					e.keys.slots[i] ^= 1 << 24
					return
				}
			}
		},
		"evictions are forgotten": func(e *Engine) { e.evicted = false },
		"kinds are forgotten":     func(e *Engine) { e.kindless = false },
	} {
		found := false
		for seed := uint64(0); seed < 20 && !found; seed++ {
			found = nonsense(picker(seed), 16, 300, spoil) != nil
		}
		if !found {
			t.Errorf("%s: not seen", name)
		}
	}
	for name, spoil := range map[string]func(e *Engine){
		"a chain goes on from another root": func(e *Engine) { e.rootState++ },
		"a chain goes on from another key": func(e *Engine) {
			if len(e.blocks) > int(inner) {
				e.blocks[len(e.blocks)-1].key++
			}
		},
	} {
		d := newDrive(t, picker(3), driven()["tiers"])
		d.spoil = spoil
		if d.run(2000) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
}

// A tape makes choices from the bytes of a fuzz input.
func tape(data []byte) func(n int) int {
	return func(n int) int {
		if len(data) < 2 {
			return 0
		}
		v := int(data[0])<<8 | int(data[1])
		data = data[2:]
		return v % n
	}
}

func FuzzModel(f *testing.F) {
	names := slices.Sorted(maps.Keys(driven()))
	for i := range names {
		data := make([]byte, 6000)
		r := rand.New(rand.NewPCG(uint64(i), 1))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		f.Add(uint8(i), data)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		o := driven()[names[int(which)%len(names)]]
		o.nodes, o.engines = min(o.nodes, 60), min(o.engines, 4)
		d := newDrive(t, picker(uint64(len(data))), o)
		d.pick = tape(data)
		if err := d.run(min(len(data)/12, 300)); err != nil {
			t.Fatal(err)
		}
	})
}
