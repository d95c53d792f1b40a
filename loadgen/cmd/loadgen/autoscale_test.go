package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/loadgen/elastic"
)

// autoscale runs the verb and returns what its JSON file then holds.
func autoscale(t *testing.T, path string, args ...string) scaling {
	t.Helper()
	if err := root().ParseAndRun(t.Context(), append([]string{"autoscale", "--json", path}, args...)); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s scaling
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Other programs read these names.
func TestTheShapeOfTheScalingJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.json")
	autoscale(t, path, "--workload", "ramp", "--rate-scale", "0.02", "--policies", "warmpath,static-peak", "--service", "slo")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	run := file["runs"].([]any)[0].(map[string]any)
	metrics := run["metrics"].(map[string]any)
	for name, c := range map[string]struct {
		got  any
		want string
	}{
		"file": {file, "commit gpus_per_replica machine rate_scale runs schema slo started summary"},
		"slo":  {file["slo"], "itl_s ttft_s"},
		"gpus": {file["gpus_per_replica"], "decode prefill"},
		"run":  {run, "arrivals code metrics policy rate_scale seed series service setup startup_s took_s variant workload"},
		"metrics": {metrics, "avg_replicas duplicate_orders flips_per_h gpu_s gpu_s_draining gpu_s_starting infeasible " +
			"joint_attainment joint_attainment_feasible lost_requests max_replicas ratio_to_offline replicas_ordered replicas_unused " +
			"requests ttft_p50_s ttft_p999_s ttft_p99_s unanswered worst_5min"},
		"avg_replicas": {metrics["avg_replicas"], "decode prefill"},
		"flips_per_h":  {metrics["flips_per_h"], "decode prefill"},
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
	if run["workload"] != "ramp" || run["policy"] != elastic.Ours || run["variant"] != "default" || run["service"] != "slo" || run["startup_s"] != 110. {
		t.Errorf("%v", run)
	}
}

func TestAutoscaleExplainsWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"", "--workload"},
		{"--workload rampart", "ramp, step, sine"},
		{"--workload ramp --policies best", "warmpath"},
		{"--workload ramp --seeds 0", "--seeds 0"},
		{"--workload ramp --slo 2s", "2s,50ms"},
		{"--workload ramp --startup 0s", "--startup"},
		{"--workload ramp --service lifo", "fcfs, slo"},
		{"--workload ramp --variants best", "default, tuned"},
		{"--workload ramp --headroom 1.1,x", "--headroom"},
		{"ramp", "--workload"},
	} {
		err := root().ParseAndRun(t.Context(), append([]string{"autoscale"}, strings.Fields(c.args)...))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want a word of %q", c.args, err, c.says)
		}
	}
}
