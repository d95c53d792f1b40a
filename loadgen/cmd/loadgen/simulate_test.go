package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/loadgen/sim"
)

// shortTrace writes a trace of a few conversations.
func shortTrace(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, `{"timestamp": %d, "input_length": 1400, "output_length": 20, "hash_ids": [%d, %d, %d]}`+"\n", 300*i, i%5, 100+i%5, 1000+i)
	}
	path := filepath.Join(t.TempDir(), "short.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// simulate runs the verb and returns what its JSON file then holds.
func simulate(t *testing.T, path string, args ...string) simulation {
	t.Helper()
	if err := root().ParseAndRun(t.Context(), append([]string{"simulate", "--json", path}, args...)); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return readSimulation(t, path)
}

func readSimulation(t *testing.T, path string) (s simulation) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Other programs read these names.
func TestTheShapeOfTheJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.json")
	simulate(t, path, "--trace", shortTrace(t), "--pods", "2", "--policies", "warm,random", "--seeds", "2")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	run := file["runs"].([]any)[0].(map[string]any)
	summary := file["summary"].([]any)
	for name, c := range map[string]struct {
		got  any
		want string
	}{
		"file":    {file, "commit machine runs scale schema setups slo started summary"},
		"slo":     {file["slo"], "itl_s ttft_s"},
		"run":     {run, "by_load code load metrics pods policy seed setup took_s workload"},
		"metrics": {run["metrics"], "busy_max_over_mean cache_efficiency completed goodput goodput_length_aware hit_ratio itl_max_p99_s offered output_tok_s preemptions shed tpot_mean_s ttft_mean_s ttft_p50_s ttft_p90_s ttft_p99_s"},
		"load":    {run["load"], "engines step_s top"},
		"warm":    {summary[0], "ci95 mean metric policy seeds setup workload"},
		"random":  {summary[len(summary)-1], "ci95 mean metric paired_vs_warm policy seeds setup workload"},
		"paired":  {summary[len(summary)-1].(map[string]any)["paired_vs_warm"], "ci95 diff"},
		"setup":   {file["setups"].(map[string]any)[run["setup"].(string)], "arrivals fleet scale"},
	} {
		fields, _ := c.got.(map[string]any)
		got := slices.Sorted(maps.Keys(fields))
		if code := slices.Index(got, "code"); code < 0 && name == "run" {
			got = append([]string{got[0], "code"}, got[1:]...) // outside a checkout nothing names the code
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s has %v, want %s", name, got, c.want)
		}
	}
	if run["workload"] != "trace" || run["policy"] != "warm" || len(summary) != 2*len(sim.Compared()) {
		t.Errorf("%v, %d summaries", run, len(summary))
	}
}

// One file holds the runs of many commands; what it has is not run again.
func TestRunsAreKeptAndNotRunAgain(t *testing.T) {
	path, trace := filepath.Join(t.TempDir(), "matrix.json"), shortTrace(t)
	args := func(more ...string) []string {
		return append([]string{"--trace", trace, "--pods", "2", "--policies", "warm,random"}, more...)
	}
	first := simulate(t, path, args("--seeds", "2")...)
	again := simulate(t, path, args("--seeds", "2")...)
	if len(first.Runs) != 4 || !reflect.DeepEqual(first.Runs, again.Runs) || !reflect.DeepEqual(first.Summary, again.Summary) {
		t.Fatalf("%d runs, then %d: run again, or otherwise", len(first.Runs), len(again.Runs))
	}
	runs := 4
	for _, c := range []struct {
		more []string
		adds int
	}{
		{args("--seeds", "3"), 2},
		{args("--seeds", "2", "--policies", "warm,greedy"), 2},
		{args("--lag", "1s"), 2},
		{args("--lag", "20ms"), 0}, // the default
		{args("--kv", "0.5"), 2},
		{args("--block-size", "32"), 2},
		{args("--loss", "0.1"), 2},
		{args("--loss", "0.1", "--no-replay"), 2},
		{args("--speedup", "2"), 2},
		{args("--jitter", "3s"), 2},
		{args("--scale", "1.2"), 2},
		{args("--slo", "1s,25ms"), 2},
		{args("--profile", "llama-3.1-70b-tp4"), 2},
		{args("--pods", "3"), 2},
		{args("--workload", "W8"), 2},
	} {
		got := simulate(t, path, c.more...)
		if runs += c.adds; len(got.Runs) != runs {
			t.Errorf("%v: %d runs in the file, want %d", c.more, len(got.Runs), runs)
			runs = len(got.Runs)
		}
		for _, r := range got.Runs {
			if _, ok := got.Setups[r.Setup]; !ok {
				t.Errorf("no setup of %s %s", r.Workload, r.Policy)
			}
		}
	}
	last := readSimulation(t, path)
	for _, r := range first.Runs {
		if !slices.ContainsFunc(last.Runs, func(x sim.Record) bool { return reflect.DeepEqual(x, r) }) {
			t.Errorf("%s seed %d is lost or changed", r.Policy, r.Seed)
		}
	}
}

// Runs of other code are not compared with those of this.
func TestRunsOfOtherCodeAreMadeAnew(t *testing.T) {
	path, trace := filepath.Join(t.TempDir(), "old.json"), shortTrace(t)
	s := simulate(t, path, "--trace", trace, "--pods", "2", "--policies", "warm", "--seeds", "2")
	for i := range s.Runs {
		s.Runs[i].Code, s.Runs[i].Metrics.Goodput = "other", -1
	}
	kept := s.Runs[1]
	kept.Workload = "W99"
	s.Runs = append(s.Runs, kept)
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got := simulate(t, path, "--trace", trace, "--pods", "2", "--policies", "warm", "--seeds", "1")
	if len(got.Runs) != 2 {
		t.Fatalf("%+v", got.Runs)
	}
	for _, r := range got.Runs {
		if (r.Workload == "W99") != (r.Metrics.Goodput < 0) {
			t.Errorf("%s has goodput %v", r.Workload, r.Metrics.Goodput)
		}
	}
}

// However runs end, the file has ours first, then the others, then what ours is without a part.
func TestRunsAreInOneOrder(t *testing.T) {
	want := slices.Concat(sim.Policies(), sim.Ablations())
	f := results{}
	for _, policy := range slices.Backward(want) {
		f.Runs = append(f.Runs, sim.Record{Workload: "W1", Policy: policy, Seed: 1})
	}
	f.sort()
	for i, r := range f.Runs {
		if r.Policy != want[i] {
			t.Fatalf("%s is number %d, want %s", r.Policy, i, want[i])
		}
	}
}

func TestSimulateExplainsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("no trace"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"", "--workload"},
		{"--workload W4", "W1, W2, W3"},
		{"--workload W1,W4", "W1, W2, W3"},
		{"--workload W1 --policies best", "round-robin"},
		{"--workload W1 --seeds 0", "--seeds 0"},
		{"--workload W1 --slo 2s", "2s,50ms"},
		{"--workload W1 --loss 2", "--loss"},
		{"--workload W1 --block-size 24", "multiple of 16"},
		{"--workload W1 --profile gpu", "known:"},
		{"--workload W1 --json " + dir + "/none/out.json", "--json"},
		{"--workload W1 --json " + garbage, "move it away"},
		{"--workload W7 --groups 3", "no groups"},
		{"--workload W1,W2 --trace x", "--trace"},
		{"--trace " + dir + "/none.jsonl", "none.jsonl"},
		{"--trace " + garbage, "mooncake format"},
		{"--trace " + garbage + " --format csv", "azure"},
		{"W1", "--workload"},
	} {
		err := root().ParseAndRun(t.Context(), append([]string{"simulate"}, strings.Fields(c.args)...))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want a word of %q", c.args, err, c.says)
		}
	}
}

func TestHelpNamesAllThereIs(t *testing.T) {
	for _, name := range slices.Concat(sim.Policies(), workloads) {
		said := func(before, behind string) bool { return strings.Contains(simulateHelp, before+name+behind) }
		if !said("  ", " ") && !said(", ", " ") && !said("  ", ",") && !said("; ", ":") {
			t.Errorf("--help does not tell of %s", name)
		}
	}
	for _, scene := range sim.Catalogue() {
		if !slices.Contains(workloads, scene.Name) {
			t.Errorf("%s is not in the list of workloads", scene.Name)
		}
	}
}
