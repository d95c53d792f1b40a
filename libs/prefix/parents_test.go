package prefix

import (
	"maps"
	"slices"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// grow lets several prompts grow by a block each in one batch, as an engine that decodes does.
func (d *drive) grow(m *modelEngine) {
	if m.gone {
		return
	}
	var events []kvevent.Event
	group := d.pick(m.groups)
	for range 2 + d.pick(5) {
		ends := m.ends(d.pick(len(d.w.nodes)))
		i := 0
		for i < len(ends)-1 && m.held(m.hash(ends[i]), false) {
			i++
		}
		if len(ends) > 0 {
			events = append(events, m.storeEvent(ends, i, i+1, GPU, group))
			m.store(ends, i, i+1, GPU, group)
		}
	}
	d.foldAll(m, events)
}

// shape is what joining does to runs.
type shape struct{ parents, hashes []uint64 }

func shapes(runs []Run) (s []shape) {
	for _, r := range runs {
		parents := r.Parents
		if r.HasParent {
			parents = []uint64{r.Parent}
		}
		s = append(s, shape{parents, r.Hashes})
	}
	return s
}

// Blocks that do not follow one another share a run, and those that do never pay for it.
func TestBlocksOfManyParentsShareARun(t *testing.T) {
	held := []kvevent.Event{stored(prompt(48, 1), 16, 1, 2, 3), stored(prompt(48, 1000), 16, 11, 12, 13)}
	grow := func(parent uint64, hashes ...uint64) kvevent.Event {
		return under(parent, stored(prompt(16*len(hashes), uint32(100*hashes[0])), 16, hashes...))
	}
	for name, c := range map[string]struct {
		size   int // canonical, if not that of the blocks
		events []kvevent.Event
		want   []shape
	}{
		"one":              {0, []kvevent.Event{grow(3, 4)}, []shape{{[]uint64{3}, []uint64{4}}}},
		"many":             {0, []kvevent.Event{grow(3, 4), grow(13, 14), grow(3, 5)}, []shape{{[]uint64{3, 13, 3}, []uint64{4, 14, 5}}}},
		"a chain":          {0, []kvevent.Event{grow(3, 4, 5), grow(5, 6)}, []shape{{[]uint64{3}, []uint64{4, 5, 6}}}},
		"one after chain":  {0, []kvevent.Event{grow(3, 4, 5), grow(13, 14)}, []shape{{[]uint64{3}, []uint64{4, 5}}, {[]uint64{13}, []uint64{14}}}},
		"chain after one":  {0, []kvevent.Event{grow(3, 4), grow(13, 14, 15)}, []shape{{[]uint64{3}, []uint64{4}}, {[]uint64{13}, []uint64{14, 15}}}},
		"chain after many": {0, []kvevent.Event{grow(3, 4), grow(2, 5), grow(13, 14, 15, 16)}, []shape{{[]uint64{3, 2}, []uint64{4, 5}}, {[]uint64{13}, []uint64{14, 15, 16}}}},
		"many, chain, many": {0, []kvevent.Event{grow(3, 4), grow(2, 5, 6), grow(12, 14), grow(13, 15)},
			[]shape{{[]uint64{3}, []uint64{4}}, {[]uint64{2}, []uint64{5, 6}}, {[]uint64{12, 13}, []uint64{14, 15}}}},
		"a prompt begins":      {0, []kvevent.Event{grow(3, 4), grow(13, 14), stored(prompt(16, 7000), 16, 70)}, []shape{{[]uint64{3, 13}, []uint64{4, 14}}, {nil, []uint64{70}}}},
		"one goes on under it": {0, []kvevent.Event{stored(prompt(16, 7000), 16, 70), grow(13, 14)}, []shape{{nil, []uint64{70}}, {[]uint64{13}, []uint64{14}}}},
		"of another size": {48, []kvevent.Event{grow(3, 4), grow(13, 14), grow(14, 15), grow(15, 16)},
			[]shape{{[]uint64{3, 13}, []uint64{4, 14}}, {[]uint64{14}, []uint64{15, 16}}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, EngineOptions{BlockSize: max(c.size, 16)})
			r.fold(held...)
			runs := r.a.FoldAll(c.events, nil)
			if got := shapes(runs); !slices.EqualFunc(got, c.want, func(a, b shape) bool {
				return slices.Equal(a.parents, b.parents) && slices.Equal(a.hashes, b.hashes)
			}) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			for i := range runs {
				r.b.Restore(&runs[i])
				r.x.Apply("e", &runs[i])
			}
			r.fold(kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{13}}) // hides what grew there
			back := NewEngine(r.a.o)
			for run := range r.a.Snapshot {
				back.Restore(&run)
			}
			r.b = back
			r.fold(grow(12, 13))
		})
	}
}

// A run of many parents is bounded like others.
func TestRunOfManyParentsIsBounded(t *testing.T) {
	e := NewEngine(EngineOptions{Pool: "p", BlockSize: 16})
	events := []kvevent.Event{stored(prompt(16, 1), 16, 1)}
	for i := range uint64(2*maxRun + 10) {
		events = append(events, under(1, stored(prompt(16, uint32(100+i)), 16, 2+i)))
	}
	runs := e.FoldAll(events, nil)
	if len(runs) != 4 || len(runs[1].Parents) != maxRun || len(runs[3].Parents) != 10-1 { // block 2 follows block 1
		t.Errorf("%d runs", len(runs))
	}
}

func TestRestoreRefusesWrongParents(t *testing.T) {
	two := []uint64{2, 3}
	for name, r := range map[string]Run{
		"too few":          {Copy: Added, Hashes: two, Keys: two, Parents: []uint64{1}},
		"too many":         {Copy: Added, Hashes: two, Keys: two, Parents: []uint64{1, 1, 1}},
		"and a parent":     {Copy: Added, Hashes: two, Keys: two, Parents: []uint64{1, 1}, Parent: 1, HasParent: true},
		"no keys":          {Copy: Added, Hashes: two, Parents: []uint64{1, 1}},
		"keys alone":       {GPU: Added, Any: Added, Keys: two, Parents: []uint64{1, 1}},
		"no blocks":        {Copy: Added, Parents: []uint64{1}},
		"removed":          {Copy: Removed, Hashes: []uint64{1, 1}, Keys: two, Parents: []uint64{1, 1}},
		"cleared":          {Clear: true, Parents: []uint64{1}},
		"one is not known": {Copy: Added, Hashes: two, Keys: two, Parents: []uint64{99, 1}},
		"its own parent":   {Copy: Added, Hashes: two, Keys: two, Parents: []uint64{2, 1}},
	} {
		e := NewEngine(EngineOptions{Pool: "p", BlockSize: 16})
		e.Restore(&Run{Copy: Added, GPU: Added, Any: Added, Hashes: []uint64{1}, Keys: []uint64{1}})
		before := copiesOf(e)
		e.Restore(&r)
		if s := e.Stats(); s.Malformed != 1 || !maps.Equal(copiesOf(e), before) {
			t.Errorf("%s: %+v, %v", name, s, copiesOf(e))
		}
	}
}

// A restored engine that mistakes the parents of a run is seen.
func TestModelFindsWrongParents(t *testing.T) {
	for name, bend := range map[string]func(r *Run){
		"the first one's for all": func(r *Run) {
			r.Parents = slices.Repeat(r.Parents[:1], len(r.Parents))
		},
		"a chain": func(r *Run) {
			r.Parent, r.HasParent, r.Parents = r.Parents[0], true, nil
		},
		"turned": func(r *Run) {
			r.Parents = slices.Clone(r.Parents)
			slices.Reverse(r.Parents)
		},
	} {
		d := newDrive(t, picker(3), driven()["same size"])
		d.bent = func(r *Run) {
			if len(r.Parents) > 1 {
				bend(r)
			}
		}
		if d.run(900) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
}
