package bench

import (
	"slices"
	"testing"

	"github.com/warmpath/warmpath/libs/prefix"
)

func histories() map[string]History {
	return map[string]History{
		"in order, 8 engines":   {Seed: 1, Engines: 8, Steps: 1200},
		"in order, 16 engines":  {Seed: 2, Engines: 16, Steps: 1200},
		"with holes, 8 engines": {Seed: 3, Engines: 8, Steps: 1200, Interior: true},
	}
}

// Each rival is right where it claims to be, and wrong where its design says so.
func TestRivalsKeepWhatTheyClaim(t *testing.T) {
	claims := map[string][3]bool{ // wrong: in order with 8 engines, with 16, with holes
		"two-level LRU, as published": {false, true, false},
		"ordered walk, as published":  {false, true, false},
		"compressed radix tree":       {false, false, true},
	}
	for _, rival := range Rivals() {
		if rival.Name == "Warmpath, index alone" {
			continue // it is fed by folds: see Folded
		}
		t.Run(rival.Name, func(t *testing.T) {
			for i, name := range []string{"in order, 8 engines", "in order, 16 engines", "with holes, 8 engines"} {
				v := histories()[name].Judge(rival.New())
				t.Logf("%s: %d of %d answers wrong, %d too large", name, v.Wrong, v.Queries, v.Over)
				if v.Queries < 800 {
					t.Errorf("%s: only %d queries had an answer", name, v.Queries)
				}
				if wrong := v.Wrong > 0; wrong != claims[rival.Name][i] {
					t.Errorf("%s: %d of %d wrong, want some: %t", name, v.Wrong, v.Queries, claims[rival.Name][i])
				}
				if v.Over > 0 {
					t.Errorf("%s: %d answers too large: none of them overcounts", name, v.Over)
				}
			}
		})
	}
}

// deaf is an Index that misses every n-th removal.
type deaf struct {
	Index

	n, heard int
}

func (d *deaf) Apply(s *Step) {
	if s.Run.Copy == prefix.Removed {
		if d.heard++; d.heard%d.n == 0 {
			return
		}
	}
	d.Index.Apply(s)
}

// A verdict that finds nothing would prove nothing.
func TestJudgeFindsFaults(t *testing.T) {
	for name, h := range histories() {
		if v := h.Judge(&deaf{Index: NewGoMaps(), n: 100}); v.Over == 0 {
			t.Errorf("%s: lost removals were not found in %d queries", name, v.Queries)
		}
	}
}

// The runs that the Index is timed with are those that an Engine makes of the same events.
func TestStepsAreWhatAnEngineSays(t *testing.T) {
	w := newWork(4000)
	f := NewFolded()
	steps := []*Step{w.short[0].store("e", 0, 32), w.short[0].remove("e", 16, 32), w.short[0].remove("e", 0, 16)}
	for i := range w.chains {
		from := 0
		if i%4 != 0 {
			from = shared
		}
		steps = append(steps, w.chains[i].store("e", from, chainLength))
	}
	for i, s := range steps {
		f.Apply(s)
		if len(f.runs) != 1 || f.runs[0].Split || f.runs[0].Copy != s.Run.Copy || f.runs[0].GPU != s.Run.GPU ||
			f.runs[0].Any != s.Run.Any || !slices.Equal(f.runs[0].Keys, s.Run.Keys) {
			t.Fatalf("step %d: %d runs that are not the step", i, len(f.runs))
		}
	}
}

// All rivals that may remember 16 engines give the answers that are timed.
func TestRivalsAgreeOnTheWork(t *testing.T) {
	w := newWork(4000)
	for _, rival := range Rivals() {
		limit := 16
		if rival.Name == "two-level LRU, as published" || rival.Name == "ordered walk, as published" {
			limit = Published
		}
		x := rival.New()
		w.fill(x, 16, distinctDepth)
		for i := range w.chains {
			got := map[string]int{}
			for _, d := range x.Match(w.chains[i].keys, nil) {
				if d.GPU > 0 {
					got[d.Engine] = d.GPU
				}
			}
			right := 0
			for e := range 16 {
				if got[engineName(e)] == distinctDepth(e) {
					right++
				}
			}
			if right != limit {
				t.Errorf("%s: %d of 16 depths right, want %d: %v", rival.Name, right, limit, got)
				break
			}
		}
		if got := x.Match(w.misses[0].keys, nil); slices.ContainsFunc(got, func(d prefix.Depth) bool { return d.GPU > 0 }) {
			t.Errorf("%s: %v for a prompt that nobody holds", rival.Name, got)
		}
	}
}
