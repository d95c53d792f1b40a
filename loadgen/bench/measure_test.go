package bench

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// The stand-in for the two-level LRU makes as many allocations as its original was seen to make: 34,541 for a lookup of
// 500 keys with 16 pods each, with the text of the log line. The race detector adds some.
func TestTracedLookupAllocatesLikeTheOriginal(t *testing.T) {
	w, l := newWork(1000), NewTwoLevelLRU(unlimited, true)
	w.fill(l, holders, sameDepth)
	got := testing.AllocsPerRun(5, func() { l.Lookup(w.chains[0].keys) })
	if got < 0.9*34541 || got > 1.3*34541 {
		t.Errorf("%.0f allocations, want about 34,541", got)
	}
}

func TestMeasureFillsEveryFigure(t *testing.T) {
	const rows = 1000
	told, rivals := 0, Rivals()[4:7] // the quick ones
	figures, err := Measure(context.Background(), rivals, Options{
		Rows: rows, Round: time.Millisecond, Steps: 50, Progress: func(done, all int, _ string) {
			if done != told || all != 5*len(rivals) {
				t.Errorf("told of %d of %d, want %d", done, all, told)
			}
			told++
		},
	})
	if err != nil || len(figures) != len(rivals) {
		t.Fatalf("%d rivals measured: %v", len(figures), err)
	}
	for _, f := range figures {
		for name, v := range map[string]float64{
			"same": f.MatchUS.Same, "hot": f.MatchUS.Hot, "one": f.MatchUS.OneHot, "distinct": f.MatchUS.Distinct, "miss": f.MatchUS.Miss,
			"1 core": float64(f.PerS[0]), "2 cores": float64(f.PerS[1]), "p50": f.Beside.P50US, "p99": f.Beside.P99US,
			"store": f.ApplyNS.Store, "mixed": f.ApplyNS.Mixed, "remove": f.ApplyNS.Remove,
			"shared": f.ApplyNS.Shared, "B1": f.One.Bytes, "B16": f.Sixteen.Bytes, "gc": f.One.GCMS, "drop": f.DropMS,
			"queries": float64(f.Holes8.Queries),
		} {
			if v <= 0 {
				t.Errorf("%s: %s is %g", f.Rival, name, v)
			}
		}
	}
	var table bytes.Buffer
	if err := Table(&table, figures, rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rivals {
		if strings.Count(table.String(), r.Name) < 2 {
			t.Errorf("%s is not in both tables:\n%s", r.Name, table.String())
		}
	}
	if reaches := Reaches(figures, rows); len(reaches) != 6 {
		t.Errorf("%d comparisons with originals, want 6", len(reaches))
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	figures, err := Measure(ctx, Rivals()[5:7], Options{Rows: 1000, Round: time.Millisecond, Steps: 50, Progress: func(done, _ int, _ string) {
		if done == 5 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || len(figures) != 1 {
		t.Errorf("%d rivals, %v; want the one that was measured before the end", len(figures), err)
	}
}
