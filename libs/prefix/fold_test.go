package prefix

import (
	"maps"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

func prompt(n int, first uint32) []uint32 {
	tokens := make([]uint32, n)
	for i := range tokens {
		tokens[i] = first + uint32(i)
	}
	return tokens
}

func stored(tokens []uint32, size int, hashes ...uint64) kvevent.Event {
	return kvevent.Event{Kind: kvevent.Stored, BlockSize: size, Tokens: tokens, Hashes: hashes}
}

func under(parent uint64, ev kvevent.Event) kvevent.Event {
	ev.Parent, ev.HasParent = parent, true
	return ev
}

// A rig is an engine, one fed with its runs, and an index.
type rig struct {
	t    *testing.T
	a, b *Engine
	x    *Index
}

func newRig(t *testing.T, o EngineOptions) *rig {
	o.Pool = "p"
	return &rig{t, NewEngine(o), NewEngine(o), NewIndex()}
}

func (r *rig) fold(evs ...kvevent.Event) {
	r.t.Helper()
	r.x.Apply("e", &Run{})
	for i := range evs {
		runs := r.a.Fold(&evs[i], nil)
		for j := range runs {
			r.b.Restore(&runs[j])
			r.x.Apply("e", &runs[j])
		}
	}
	if a, b := r.a.Stats(), r.b.Stats(); a.Digest != b.Digest || !maps.Equal(copiesOf(r.a), copiesOf(r.b)) || b.Malformed != 0 {
		r.t.Errorf("folded %+v, restored %+v", a, b)
	}
	s := r.a.Stats()
	if i, _ := r.x.Engine("e"); i.VisibleGPU != s.VisibleGPU || i.VisibleAny != s.VisibleAny || i.Digest != s.Digest || i.Missing+i.Surplus != 0 {
		r.t.Errorf("index has %+v, engine %+v", i, s)
	}
}

// depth asks for a prompt's depths.
func (r *rig) depth(tokens []uint32, s blockkey.Scope, gpu, any int) {
	r.t.Helper()
	s.Pool, s.BlockSize = "p", r.a.o.BlockSize
	if d := r.x.Match(blockkey.Keys(nil, s, tokens, nil), nil); d[0] != (Depth{"e", gpu, any}) {
		r.t.Errorf("depths %+v, want %d and %d", d, gpu, any)
	}
}

func TestMediumAndTiers(t *testing.T) {
	r := newRig(t, EngineOptions{BlockSize: 16})
	tokens := prompt(48, 1)
	gpu := stored(tokens, 16, 1, 2, 3)
	gpu.Medium = "gPu"
	cpu := kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{3, 2, 1}, Medium: "cpu"}
	disk := kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{1}, Medium: "Storage"}
	tape := stored(tokens, 16, 1, 2, 3)
	tape.Medium = "tape"
	r.fold(gpu, cpu, disk, tape)
	r.depth(tokens, blockkey.Scope{}, 3, 3)
	r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{1}})
	r.depth(tokens, blockkey.Scope{}, 0, 3)
	r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{1}, Medium: "tape"}) // both other tiers
	r.depth(tokens, blockkey.Scope{}, 0, 0)
	r.fold(gpu)
	r.depth(tokens, blockkey.Scope{}, 3, 3)
	r.fold(kvevent.Event{Kind: kvevent.Cleared})
	r.depth(tokens, blockkey.Scope{}, 0, 0)
	r.fold(disk) // what is below was in cpu memory all the time
	r.depth(tokens, blockkey.Scope{}, 0, 3)
	if s := r.a.Stats(); s.UnknownMedium != 3 || s.Copies != 3 {
		t.Errorf("%+v", s)
	}
}

// An engine with one tier changes both sets at once, and clears in one run.
func TestOneSetOneRun(t *testing.T) {
	e := NewEngine(EngineOptions{BlockSize: 16})
	ev := stored(prompt(64, 1), 16, 1, 2, 3, 4)
	runs := e.Fold(&ev, nil)
	if len(runs) != 1 || runs[0].GPU != Added || runs[0].Any != Added || len(runs[0].Keys) != 4 || runs[0].Split {
		t.Errorf("stored: %+v", runs)
	}
	if runs = e.Fold(&kvevent.Event{Kind: kvevent.Cleared}, nil); len(runs) != 1 || !runs[0].Clear {
		t.Errorf("cleared: %+v", runs)
	}
	if e.live != 0 || len(copiesOf(e)) != 0 {
		t.Errorf("%d blocks left", e.live)
	}
}

func TestInteriorRemovalAndLostParent(t *testing.T) {
	r := newRig(t, EngineOptions{BlockSize: 16})
	tokens := prompt(80, 1)
	none := blockkey.Scope{}
	r.fold(under(12, stored(tokens[48:], 16, 13, 14)), under(10, stored(tokens[16:48], 16, 11, 12)))
	r.depth(tokens, none, 0, 0)
	if w := r.a.Stats().Waiting; w != 4 {
		t.Errorf("%d blocks wait, want 4", w)
	}
	r.fold(stored(tokens[:16], 16, 10))
	r.depth(tokens, none, 5, 5)
	r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{11}})
	r.depth(tokens, none, 1, 1)
	r.fold(under(10, stored(tokens[16:32], 16, 11)))
	r.depth(tokens, none, 5, 5)
	r.fold(under(10, stored(tokens[16:32], 16, 11)), kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{11, 99}})
	r.depth(tokens, none, 5, 5) // one of two copies, and one never heard of
	if s := r.a.Stats(); s.UnknownRemovals != 1 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWaitingIsBounded(t *testing.T) {
	r := newRig(t, EngineOptions{BlockSize: 16, Blocks: 8})
	for i := range uint64(20) {
		r.fold(under(1000+i, stored(prompt(16, 1), 16, 1+i)))
	}
	s := r.a.Stats()
	if s.Waiting != 8 || s.Dropped != 12 || s.Copies != 20 {
		t.Errorf("%+v", s)
	}
	r.fold(stored(prompt(16, 1), 16, 1000), stored(prompt(16, 1), 16, 1019))
	if s = r.a.Stats(); s.Waiting != 7 || s.VisibleGPU != 2 { // the last one, and one key of both parents
		t.Errorf("%+v", s)
	}
	if !strings.Contains(s.Partial, "more copies") {
		t.Errorf("22 copies in 8 blocks, partial %q", s.Partial)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	e := NewEngine(EngineOptions{BlockSize: 16, Blocks: 1})
	for i := range uint64(500_000) {
		ev := under(i*2+1, stored(prompt(16, 1), 16, i*2))
		switch i % 3 {
		case 0:
			ev = kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{i * 2}, Medium: "cpu"}
		case 1:
			ev.LoRAID, ev.HasLoRAID = 1, true
		}
		e.Fold(&ev, nil)
	}
	s := e.Stats()
	if e.live+len(e.others) > 32<<12 || s.Overflow == 0 || s.Partial == "" || s.Waiting > 1 {
		t.Errorf("%d blocks, %+v", e.live+len(e.others), s)
	}
	b := NewEngine(EngineOptions{BlockSize: 16, Blocks: 1})
	e.Snapshot(func(r Run) bool {
		b.Restore(&r)
		return true
	})
	if b.overfull = false; b.Stats().Partial == "" {
		t.Errorf("restored: %+v", b.Stats())
	}
}

func TestUnjoinableIsCountedOnly(t *testing.T) {
	tokens := prompt(48, 1)
	for name, change := range map[string]func(*kvevent.Event){
		"lora id without name": func(ev *kvevent.Event) { ev.HasLoRAID, ev.LoRAID = true, 3 },
		"tokens do not pair":   func(ev *kvevent.Event) { ev.Tokens = ev.Tokens[:47] },
		"bare items":           func(ev *kvevent.Event) { ev.Extra = [][]kvevent.ExtraKey{{{Text: "img"}, {Text: "salt"}}, nil, nil} },
		"block size":           func(ev *kvevent.Event) { ev.BlockSize, ev.Hashes = 24, ev.Hashes[:2] },
	} {
		r := newRig(t, EngineOptions{BlockSize: 16})
		ev := stored(tokens, 16, 1, 2, 3)
		change(&ev)
		r.fold(ev, under(ev.Hashes[len(ev.Hashes)-1], stored(tokens[:16], 16, 9)))
		r.depth(tokens, blockkey.Scope{}, 0, 0)
		n := len(ev.Hashes) + 1
		s := r.a.Stats()
		if s.Copies != n || s.Blocks != 0 || s.Unjoinable != uint64(n) || s.Waiting != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		if (name == "block size") != (strings.Contains(s.Refused, "24") && strings.Contains(s.Refused, "16")) {
			t.Errorf("%s: refused %q", name, s.Refused)
		}
		r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: append(ev.Hashes, 9)})
		if s := r.a.Stats(); s.Copies != 0 || s.UnknownRemovals != 0 {
			t.Errorf("%s, removed: %+v", name, s)
		}
	}
}

// A multimodal engine that sends no extra keys is not indexed; what it offloads is known by its hashes.
func TestMultimodalWithoutExtraKeys(t *testing.T) {
	r := newRig(t, EngineOptions{BlockSize: 16, Multimodal: true})
	tokens := prompt(32, 1)
	gpu, cpu := stored(tokens, 16, 1, 2), stored(tokens, 16, 1, 2)
	cpu.Medium = "CPU"
	r.fold(gpu)
	r.depth(tokens, blockkey.Scope{}, 0, 0)
	r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: gpu.Hashes}, cpu)
	r.depth(tokens, blockkey.Scope{}, 0, 0)
	gpu.HasExtra, gpu.Extra = true, make([][]kvevent.ExtraKey, 2)
	r.fold(gpu, kvevent.Event{Kind: kvevent.Removed, Hashes: gpu.Hashes})
	r.depth(tokens, blockkey.Scope{}, 0, 2)
}

func TestExtraKeysJoinRequests(t *testing.T) {
	tokens := prompt(48, 1)
	ev := stored(tokens, 16, 1, 2, 3)
	ev.LoRAName, ev.HasLoRAID, ev.LoRAID, ev.HasExtra = "x", true, 1, true
	ev.Extra = [][]kvevent.ExtraKey{
		{{Text: "x"}, {Text: "img", Offset: 9, HasOffset: true}, {Text: "x"}}, // the salt may be called like the adapter
		{{Text: "x"}, {Text: "img", Offset: -7, HasOffset: true}, {Text: "two", Offset: 3, HasOffset: true}},
		{{Text: "x"}, {Text: "two", Offset: -13, HasOffset: true}},
	}
	r := newRig(t, EngineOptions{BlockSize: 16})
	r.fold(ev)
	s := blockkey.Scope{Pool: "p", BlockSize: 16, LoRA: "x", Salt: "x"}
	keys := blockkey.Keys(nil, s, tokens, []blockkey.Item{{ID: "img", Start: 9}, {ID: "two", Start: 19}})
	if d := r.x.Match(keys, nil); d[0].GPU != 3 {
		t.Errorf("depth %v, want 3", d)
	}
	r.depth(tokens, s, 0, 0)
}

// Two engine hashes may stand for one key; it is shown while either block is visible.
func TestTwinKeys(t *testing.T) {
	r := newRig(t, EngineOptions{BlockSize: 16})
	tokens := prompt(48, 1)
	r.fold(stored(tokens, 16, 1, 2, 3), stored(tokens[:32], 16, 11, 12))
	for _, h := range []uint64{2, 1, 11, 3} {
		r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{h}})
		want := map[uint64]int{2: 2, 1: 2}[h]
		r.depth(tokens, blockkey.Scope{}, want, want)
	}
	r.fold(stored(tokens[:16], 16, 11))
	r.depth(tokens, blockkey.Scope{}, 2, 2)
	for _, order := range [][]uint64{{31, 41}, {41, 31}} { // the log tells twins apart
		r.fold(stored(prompt(16, 900), 16, 31), stored(prompt(16, 900), 16, 41))
		for i, h := range order {
			r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{h}})
			r.depth(prompt(16, 900), blockkey.Scope{}, 1-i, 1-i)
		}
	}
}

// A snapshot of an engine whose blocks share keys shows each once.
func TestSnapshotOfTwins(t *testing.T) {
	e := NewEngine(EngineOptions{Pool: "p", BlockSize: 16})
	tokens := prompt(128, 1)
	for _, ev := range []kvevent.Event{stored(tokens, 64, 1, 2), stored(tokens[:96], 16, 10, 11, 12, 13, 14, 15),
		stored(tokens[:32], 16, 20, 21), stored(tokens[:32], 16, 20, 21)} {
		e.Fold(&ev, nil)
	}
	x, b := NewIndex(), NewEngine(EngineOptions{Pool: "p", BlockSize: 16})
	x.Replace("e", 5, func(yield func(*Run) bool) {
		e.Snapshot(func(r Run) bool {
			b.Restore(&r)
			return yield(&r)
		})
	})
	i, _ := x.Engine("e")
	if s := e.Stats(); i.Digest != s.Digest || i.VisibleGPU != 8 || i.Surplus != 0 || i.Generation != 5 || b.Stats() != s {
		t.Errorf("index has %+v, restored %+v, want %+v", i, b.Stats(), s)
	}
	if !maps.Equal(copiesOf(e), copiesOf(b)) {
		t.Errorf("copies %v, want %v", copiesOf(b), copiesOf(e))
	}
}

// What an engine has evicted, and why it is known only in part, is in its runs and in its snapshots.
func TestWhatSnapshotsRemember(t *testing.T) {
	tokens := prompt(48, 1)
	late := stored(tokens, 16, 1, 2, 3)
	late.HasGroup, late.Group = true, 1
	cpu := stored(tokens, 16, 1)
	cpu.Medium = "cpu"
	fromCPU := kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{1}, Medium: "cpu"}
	fromGPU := kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{3}}
	foreign := stored(tokens[:16], 16, 9)
	foreign.SpecKind, foreign.Group, foreign.HasGroup = "mamba", 2, true
	for name, c := range map[string]struct {
		events  []kvevent.Event
		evicted bool
		partial string
	}{
		"nothing":             {},
		"stored":              {events: []kvevent.Event{stored(tokens, 16, 1, 2, 3)}},
		"unknown removal":     {events: []kvevent.Event{fromGPU}},
		"removed elsewhere":   {events: []kvevent.Event{cpu, fromCPU}},
		"removed":             {events: []kvevent.Event{stored(tokens, 16, 1, 2, 3), fromGPU}, evicted: true},
		"removed, not joined": {events: []kvevent.Event{foreign, {Kind: kvevent.Removed, Hashes: []uint64{9}, Group: 2, HasGroup: true}}, evicted: true},
		"cleared":             {events: []kvevent.Event{stored(tokens, 16, 1), cpu, {Kind: kvevent.Cleared}}, evicted: true},
		"group without kind":  {events: []kvevent.Event{stored(tokens, 16, 1), late}, partial: "without a kind"},
		"too many copies":     {events: []kvevent.Event{stored(tokens, 16, 1, 2, 3), stored(tokens, 16, 1, 2, 3)}, partial: "more copies"},
	} {
		o := EngineOptions{BlockSize: 16, Blocks: 4}
		r := newRig(t, o)
		r.fold(c.events...)
		o.Pool = "p"
		fresh, x := NewEngine(o), NewIndex()
		x.Replace("e", 2, func(yield func(*Run) bool) {
			r.a.Snapshot(func(run Run) bool {
				fresh.Restore(&run)
				return yield(&run)
			})
		})
		before, _ := r.x.Engine("e")
		after, _ := x.Engine("e")
		if before.Evicted != c.evicted || after.Evicted != c.evicted {
			t.Errorf("%s: evicted %t in the index, %t after a snapshot; want %t", name, before.Evicted, after.Evicted, c.evicted)
		}
		for _, e := range []*Engine{r.a, r.b, fresh} {
			s := e.Stats()
			if s.Evicted != c.evicted || (s.Partial != "") != (c.partial != "") || !strings.Contains(s.Partial, c.partial) || s.Malformed != 0 {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if after.Digest != r.a.Stats().Digest || fresh.Stats().Digest != after.Digest {
			t.Errorf("%s: digests differ", name)
		}
	}
}

func TestGroupsWithoutKind(t *testing.T) {
	r := newRig(t, EngineOptions{BlockSize: 16})
	a, b := stored(prompt(32, 1), 16, 1, 2), stored(prompt(32, 1), 16, 1, 2)
	a.HasGroup, b.HasGroup, b.Group = true, true, 1
	r.fold(a, b)
	r.depth(prompt(32, 1), blockkey.Scope{}, 2, 2)
	if s := r.a.Stats(); s.OtherGroups != 2 || s.Copies != 4 || s.Partial == "" {
		t.Errorf("%+v", s)
	}
}

func TestOffloadedBlocks(t *testing.T) {
	for _, s := range goldenSteps(t, "../kvevent/testdata/golden/offload_main-2026-08-17.jsonl") {
		r := newRig(t, EngineOptions{BlockSize: 16})
		all := []kvevent.Event{stored(s.Request.Tokens[:64], 16)}
		for _, h := range s.Request.Hashes[:4] {
			all[0].Hashes = append(all[0].Hashes, low64(t, h))
		}
		b := goldenBatch(t, s.Frames)
		want := 4
		for _, ev := range b.Events {
			if ev.Kind == kvevent.Removed || s.Request.LoRA != "" {
				want = 0
			}
		}
		r.fold(b.Events...)
		r.fold(all...)
		if want > 0 {
			r.depth(s.Request.Tokens[:64], blockkey.Scope{}, 4, 4)
		}
		if st := r.a.Stats(); st.Malformed != 0 || st.UnknownMedium != 0 {
			t.Errorf("%+v", st)
		}
	}
}
