package main

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/loadgen/sim"
)

// A grid over a trace of seconds, from flags to the file; asked for again nothing is run.
func TestSweepFromEndToEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sweep.json")
	args := []string{"sweep", "--json", path, "--trace", shortTrace(t), "--pods", "3", "--seeds", "2", "--axes", "lag,outage,kv", "--policies", "warm,least-tokens"}
	if err := root().ParseAndRun(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	first := readSimulation(t, path)
	// lag has 6 points, outage one more, kv two more; 20ms, none and x1 are the same.
	if want := (6 + 1 + 2) * 2 * 2; len(first.Runs) != want || len(first.Sweep) != 3 {
		t.Fatalf("%d runs of %d, %d axes", len(first.Runs), want, len(first.Sweep))
	}
	for _, a := range first.Sweep {
		if a.Worst == "" {
			t.Errorf("no worst point of %s", a.Axis)
		}
		for _, p := range a.Points {
			if p.Gain == nil || len(p.Means) != 2 || p.Means["warm"] <= 0 {
				t.Errorf("%s at %s: %+v", a.Axis, p.Label, p)
			}
		}
	}
	out := first.Setups[first.Sweep[1].Points[1].Setup].Fleet.Outages
	if len(out) != 1 || fmt.Sprint(out[0].From, out[0].To) != "4.8s 7.2s" { // of 11.7 s, rounded
		t.Errorf("%+v", out)
	}
	if err := root().ParseAndRun(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	if again := readSimulation(t, path); !reflect.DeepEqual(again.Runs, first.Runs) || !reflect.DeepEqual(again.Sweep, first.Sweep) {
		t.Error("the second time runs are run again")
	}
}

// What flags say of the cache is where its axis begins, whether more or less than the workload's own.
func TestTheCacheOfFlagsIsDegraded(t *testing.T) {
	o := sceneOptions{workload: "W3", format: "mooncake", kv: .5, blockSize: 16}
	scenes, err := o.scenes()
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := parseAxes("kv")
	if err != nil {
		t.Fatal(err)
	}
	_, variants := (&sweepOptions{}).plan(scenes, chosen, sim.SLO{})
	var got []float64
	for _, s := range variants {
		got = append(got, s.Fleet.KV)
	}
	if want := []float64{.25, .5, 1}; !slices.Equal(got, want) {
		t.Errorf("caches of %v, want %v", got, want)
	}
}

func TestSweepExplainsWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"--axes heat", "lag, loss"},
		{"--workload W4", "W1, W2"},
		{"--seeds 0", "--seeds 0"},
		{"--workload W3 --policies best", "round-robin"},
		{"lag", "--axes lag"},
	} {
		err := root().ParseAndRun(t.Context(), append([]string{"sweep", "--json", ""}, strings.Fields(c.args)...))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want a word of %q", c.args, err, c.says)
		}
	}
	for _, a := range axes() {
		if !strings.Contains(sweepHelp, "\n  "+a.name+" ") {
			t.Errorf("--help does not tell of %s", a.name)
		}
	}
}
