package prefix

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// check tells what is wrong inside an engine: links, tables, counters, and that every block is as visible as its
// copies and its parent make it. Only a log may name blocks that nothing needs (idle).
func check(e *Engine, idle bool) error {
	seen, copies, holding := 0, [tiers]int{}, 0
	for _, top := range []uint32{root, orphans} {
		var err error
		e.preorder(top, func(at uint32) bool {
			b := &e.blocks[at]
			seen++
			for _, p := range e.places {
				copies[p.tier] += e.count(at, p)
			}
			if e.hasCopies(at) {
				holding++
			}
			found, _ := e.names.find(e.blocks, b.hash, -1)
			same := 0 // blocks with its key
			for n, slot := e.keys.find(e.blocks, b.key, -1); n != 0; n, slot = e.keys.find(e.blocks, b.key, slot) {
				same++
			}
			switch {
			case b.flags&keyed != 0 && same == 0 || b.flags&keyed != 0 && same > 1 && b.flags&twin == 0:
				err = fmt.Errorf("block %d, flags %b: %d blocks have its key", at, b.flags, same)
			case found != at:
				err = fmt.Errorf("block %d is not found by its hash", at)
			case b.flags&(visGPU|visAny) != e.wanted(at):
				err = fmt.Errorf("block %d has visibility %b, wants %b", at, b.flags, e.wanted(at))
			case b.flags&(heldGPU|heldAny) != e.held(at):
				err = fmt.Errorf("block %d has holding %b, wants %b", at, b.flags, e.held(at))
			case !idle && b.first == 0 && !e.hasCopies(at):
				err = fmt.Errorf("block %d stays for nothing", at)
			case b.flags&keyed != 0 && (e.blocks[b.parent].flags&keyed == 0 || b.parent != root && b.parent < inner):
				err = fmt.Errorf("block %d has a key and its parent has none", at)
			case b.flags&(visGPU|visAny)&^e.blocks[b.parent].flags != 0:
				err = fmt.Errorf("block %d is more visible than its parent", at)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	for f, n := range e.others {
		copies[f.tier] += int(n)
	}
	if seen != e.live || seen != e.names.used || copies != e.total || holding != e.holding {
		return fmt.Errorf("%d blocks in the tree, %d in use, %d by hash; copies %v, counted %v", seen, e.live, e.names.used, copies, e.total)
	}
	return nil
}

// anyEvent is an event that need not make sense beside those before it.
func anyEvent(pick func(n int) int) kvevent.Event {
	ev := kvevent.Event{Kind: kvevent.Kind(1 + pick(16)), Medium: []string{"", "GPU", "cpu", "Storage", "x"}[pick(5)]}
	switch {
	case ev.Kind > 8:
		ev.Kind = kvevent.Removed
	case ev.Kind > kvevent.Cleared:
		ev.Kind = kvevent.Stored
	}
	for range pick(5) {
		ev.Hashes = append(ev.Hashes, uint64(pick(12)))
	}
	ev.Parent, ev.HasParent = uint64(pick(12)), pick(2) == 0
	ev.BlockSize = []int{0, 16, 16, 32, 64, 24}[pick(6)]
	fill := pick(4) // often the same in many events, so that several hashes mean one prompt
	for range len(ev.Hashes)*ev.BlockSize - pick(8)/7 {
		if fill > 2 {
			ev.Tokens = append(ev.Tokens, uint32(pick(2)))
		} else {
			ev.Tokens = append(ev.Tokens, uint32(fill/2))
		}
	}
	ev.Group, ev.HasGroup = pick(4)-1, pick(2) == 0
	ev.SpecKind = []string{"", "full_attention", "sliding_window", "mla_attention"}[pick(4)]
	if pick(5) == 0 {
		ev.LoRAID, ev.HasLoRAID = 1, true
		ev.LoRAName = []string{"", "l"}[pick(2)]
	}
	if pick(4) == 0 {
		ev.HasExtra = true
		for range len(ev.Hashes) + pick(8)/7 {
			k := []kvevent.ExtraKey{{Text: "l"}, {Text: "i", Offset: int64(pick(40) - 20), HasOffset: true}, {Bytes: []byte{1}}, {IsInt: true}}
			ev.Extra = append(ev.Extra, k[:pick(5)])
		}
	}
	return ev
}

// nonsense folds events that contradict one another: nothing may break, and the log must still tell everything.
// A spoil puts a fault into the engine that folds, after each event.
func nonsense(pick func(n int) int, canonical, steps int, spoil func(e *Engine)) (err error) {
	defer func() {
		if p := recover(); p != nil && spoil != nil {
			err = fmt.Errorf("panic: %v", p)
		} else if p != nil {
			panic(p)
		}
	}()
	o := EngineOptions{Pool: "p", BlockSize: canonical, Blocks: 6}
	a, b, x := NewEngine(o), NewEngine(o), NewIndex()
	for i := range steps {
		ev := anyEvent(pick)
		for _, r := range a.Fold(&ev, nil) {
			b.Restore(&r)
			x.Apply("e", &r)
		}
		if spoil != nil {
			spoil(a)
		}
		for name, e := range map[string]*Engine{"folded": a, "restored": b} {
			if err := check(e, false); err != nil {
				return fmt.Errorf("step %d, %s: %w\n%+v", i, name, err, ev)
			}
		}
		sa, sb := a.Stats(), b.Stats()
		info, _ := x.Engine("e")
		if sa.Evicted != sb.Evicted || sa.Evicted != info.Evicted || sa.Partial != sb.Partial {
			return fmt.Errorf("step %d: folded %+v, restored %+v, index %+v\n%+v", i, sa, sb, info, ev)
		}
		if sa.Digest != sb.Digest || sb.Malformed != 0 || a.live != b.live || !maps.Equal(copiesOf(a), copiesOf(b)) {
			return fmt.Errorf("step %d: folded %+v, restored %+v\n%+v", i, sa, sb, ev)
		}
		if info.Digest != sa.Digest || info.VisibleGPU != sa.VisibleGPU || info.Missing+info.Surplus != 0 {
			return fmt.Errorf("step %d: index %+v, engine %+v\n%+v", i, info, sa, ev)
		}
	}
	return nil
}

// FoldAll makes the runs that Fold makes of one event after another.
func TestFoldAllIsFold(t *testing.T) {
	for seed := range uint64(40) {
		pick := picker(seed)
		o := EngineOptions{Pool: "p", BlockSize: []int{16, 64, 32}[seed%3], Blocks: 6}
		a, b := NewEngine(o), NewEngine(o)
		for range 60 {
			var events []kvevent.Event
			var want []Run
			for range pick(40) {
				events = append(events, anyEvent(pick))
				want = a.Fold(&events[len(events)-1], want)
			}
			if got := b.FoldAll(events, nil); !slices.EqualFunc(got, want, sameRun) {
				t.Fatalf("seed %d: runs %+v, want %+v", seed, got, want)
			}
		}
	}
}

func sameRun(a, b Run) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func TestNonsense(t *testing.T) {
	for seed := range uint64(60) {
		if err := nonsense(picker(seed), []int{16, 64, 32}[seed%3], 300, nil); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzFold(f *testing.F) {
	for i := range uint64(6) {
		data := make([]byte, 3000)
		r := rand.New(rand.NewPCG(i, 1))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		f.Add(uint8(i), data)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		if err := nonsense(tape(data), []int{16, 64, 32}[which%3], min(len(data)/20, 200), nil); err != nil {
			t.Fatal(err)
		}
	})
}

// Restore refuses what contradicts the runs before it, and survives it.
func FuzzRestore(f *testing.F) {
	f.Add([]byte("some bytes to begin with, which are turned into runs of all kinds, most of them quite impossible"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pick := tape(data)
		e, x := NewEngine(EngineOptions{Pool: "p", BlockSize: 16, Blocks: 6}), NewIndex()
		for range min(len(data)/16, 100) {
			r := Run{Copy: Change(pick(4)), GPU: Change(pick(4)), Any: Change(pick(4)), Tier: Tier(pick(5)), Group: pick(5) - 1,
				Parent: uint64(pick(9)), HasParent: pick(2) == 0, BlockSize: []int{0, 16, 32, -16, 1 << 40}[pick(5)],
				Split: pick(2) == 0, Clear: pick(20) == 0}
			for range pick(4) {
				r.Hashes = append(r.Hashes, uint64(pick(9)))
			}
			for range pick(4) {
				r.Keys = append(r.Keys, uint64(pick(9)))
			}
			for range (pick(3) / 2) * pick(4) {
				r.Parents = append(r.Parents, uint64(pick(9)))
			}
			for range pick(4) {
				r.Shown = append(r.Shown, uint64(pick(9)))
			}
			refused := e.Stats().Malformed
			e.Restore(&r)
			x.Apply("e", &r)
			if n := len(r.Parents); n > 0 && n != len(r.Hashes) && e.Stats().Malformed == refused {
				t.Fatalf("not refused: %+v", r)
			}
			if err := check(e, true); err != nil {
				t.Fatalf("%v\n%+v", err, r)
			}
			if i, ok := x.Engine("e"); ok && (i.VisibleGPU < 0 || i.VisibleAny < i.VisibleGPU) {
				t.Fatalf("%+v\n%+v", i, r)
			}
		}
	})
}
