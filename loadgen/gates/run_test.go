package gates

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/sim"
)

func TestRunGathersRowsInOrder(t *testing.T) {
	rows := func(r ...Row) func() ([]Row, error) { return func() ([]Row, error) { return r, nil } }
	all := []Gate{
		{ID: "a", Weight: 1, Run: rows(near("exact", 2, 2, 0), near("off", 2, 2.3, .1))},
		{ID: "b", Missing: "no file"},
		{ID: "c", Weight: 5, Run: func() ([]Row, error) { return nil, errors.New("broken") }},
		{ID: "d", Weight: 2, Run: rows(near("off", 1, 2, 0)), Reported: true},
		{ID: "e", Weight: 9, Run: rows(Row{ID: "e/own", Pass: true})},
	}
	var done atomic.Int32
	r, err := Run(t.Context(), all, func(*Gate) { done.Add(1) })
	if err != nil || done.Load() != 4 || r.Failed() != 2 || len(r.Reported) != 1 || len(r.NotRun) != 1 || r.NotRun[0] != "b: no file" {
		t.Fatalf("%+v, %d done, %v", r, done.Load(), err)
	}
	var ids []string
	for _, row := range r.Gates {
		ids = append(ids, row.ID)
	}
	if got := strings.Join(ids, " "); got != "a a c e/own" || r.Gates[2].Pass || r.Gates[2].Note != "broken" {
		t.Fatalf("%s: %+v", got, r.Gates)
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil || !strings.Contains(out.String(), "NOT RUN b: no file") || strings.Count(out.String(), "FAIL") != 4 {
		t.Fatal(err, out.String())
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := Run(stopped, all, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestOnlyTakesWholeParts(t *testing.T) {
	all := []Gate{{ID: "2.1.1"}, {ID: "2.1.10"}, {ID: "2.2/a_1"}, {ID: "2.2/a_10"}, {ID: "2.3/73"}, {ID: "2.3/73-scale-1.13"}}
	for list, want := range map[string]int{"": 6, "2.1.1": 1, "2.1": 2, "2": 6, "2.2/a_1": 1, "2.2,2.3/73": 3, "2.2/": 2, "3": 0} {
		if got := Only(all, list); len(got) != want {
			t.Errorf("%q: %v", list, got)
		}
	}
}

func TestTolerances(t *testing.T) {
	for _, c := range []struct {
		row  Row
		pass bool
	}{
		{near("", 10, 11, .1), true}, {near("", 10, 8.9, .1), false}, {near("", 0, 0, 0), true}, {near("", 0, 1e-9, .5), false},
		{near("", 10, math.NaN(), 1), false}, {none("", 1), false}, {between("", .96, .98, .96), true}, {between("", .96, .98, .9801), false},
		{between("", 20, 20, 20), true}, {holds("", false, ""), false}, {holds("", true, ""), true},
	} {
		if c.row.Pass != c.pass {
			t.Errorf("%+v", c.row)
		}
	}
}

const sample = `id,backend,model_path,mode,gemm_quant_mode,isl,osl,batch_size,tp_size,silicon_ttft_ms,silicon_tpot_ms
one,vllm,Qwen/Qwen3-32B,agg,,1024,128,8,2,154.2,18.03
two,trtllm,meta-llama/Llama-3.1-8B-Instruct,agg,,1024,128,8,1,190.9,7.94
split,vllm,Qwen/Qwen3-32B,disagg,,4000,1000,,,1,1
other,vllm,Qwen/Qwen3-32B,agg,fp8,1024,128,8,2,1,1
`

func file(t *testing.T, content string, zip bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "table.csv")
	data := []byte(content)
	if zip {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(data)
		_ = w.Close()
		data = b.Bytes()
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Rows of two public measurements, whose other columns are left out: the gates find their profiles, and pass.
func TestSiliconRows(t *testing.T) {
	for _, zip := range []bool{false, true} {
		all, err := Silicon(file(t, sample, zip))
		if err != nil || len(all) != 3 || all[0].ID != "2.2/one" || !all[1].Reported || all[2].ID != "2.2/two" {
			t.Fatalf("%+v, %v", all, err)
		}
		r, err := Run(t.Context(), all, nil)
		if err != nil || len(r.Gates) != 3 || len(r.Reported) != 1 || r.Failed() > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, row := range r.Gates {
			if row.Fitted != strings.HasPrefix(row.Name, "TPOT") {
				t.Errorf("%+v", row)
			}
		}
	}
	rows, _ := readSilicon(file(t, sample, false))
	if rows[0].saturated() || rows[0].profile != enginesim.Qwen3_32B_TP2_H100 || math.Abs(rows[0].ttft-.1542) > 1e-9 {
		t.Errorf("%+v", rows[0])
	}
	rows[0].clients = 300
	if !rows[0].saturated() {
		t.Error("300 clients fit")
	}
}

func TestBadTablesAreRefused(t *testing.T) {
	for name, content := range map[string]string{
		"no column":   "id,mode\na,agg\n",
		"no number":   strings.Replace(sample, "18.03", "fast", 1),
		"negative":    strings.Replace(sample, ",8,2,", ",-8,2,", 1),
		"endless":     strings.Replace(sample, "154.2", "+Inf", 1),
		"too many":    strings.Replace(sample, ",8,2,", ",99999999,2,", 1),
		"ragged":      sample + "a,b\n",
		"broken gzip": "\x1f\x8bnothing",
		"long":        sample + strings.Repeat("x,,,,,,,,,,\n", maxRecords),
	} {
		if _, err := Silicon(file(t, content, false)); !errors.Is(err, errTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Silicon(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if all, err := Silicon(""); err != nil || len(all) != 1 || all[0].Missing == "" {
		t.Errorf("%+v, %v", all, err)
	}
	for _, g := range Published(func(string) (string, bool) { return "", false }) {
		if g.Missing == "" {
			t.Errorf("%+v", g)
		}
	}
}

// A table of figures is compared policy by policy and in its order.
func TestPublishedComparison(t *testing.T) {
	p := tables()[1]
	all := map[string]*figures{}
	var results []*sim.Result
	for i, c := range p.columns {
		all[c.published] = &figures{rates: []float64{3, 20, 35}, tokS: []float64{1000, 2000, 3000}, mean: []float64{1, 1, 1}}
		r := &sim.Result{Metrics: sim.Metrics{OutputTokS: 2300 - 100*float64(i)}}
		for _, ttft := range []float64{.6, 1, 3} {
			r.Stages = append(r.Stages, sim.StageResult{TTFTMean: ttft, HitRatio: .97})
		}
		results = append(results, r)
	}
	failed := func() string {
		var ids []string
		for _, r := range p.compare(all, results) {
			if !r.Pass {
				ids = append(ids, strings.TrimPrefix(r.ID, "2.3/73/"))
			}
		}
		return strings.Join(ids, " ")
	}
	if got := failed(); got != "random/hit_ratio" {
		t.Errorf("failed: %s", got)
	}
	results[0].Metrics.OutputTokS, results[3].Metrics.OutputTokS = 2100, 2605
	results[1].Stages[1].TTFTMean, results[2].Stages[0].TTFTMean = 2.5, .7
	if got := failed(); got != "load/output_tok_s precise/order estimated/order estimated/collapse_qps random/miss_ttft_s random/hit_ratio" {
		t.Errorf("failed: %s", got)
	}
}

func TestPublishedTables(t *testing.T) {
	path := file(t, "qps,policy,out_tok_s,req_s,ttft_p90_s,ttft_mean_s\n3,a,10,3,1,2\n3,b,11,3,1,2\n4,a,12,4,1,3\n", true)
	all, err := readPublished(path)
	if err != nil || len(all) != 2 || len(all["a"].rates) != 2 || mean(all["a"].tokS) != 11 {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := readPublished(file(t, "qps,policy,out_tok_s,ttft_mean_s\n4,a,10,3\n3,a,11,3\n", false)); !errors.Is(err, errTable) {
		t.Error(err)
	}
}

// The JSON has the fields that others read, and no more.
func TestRowsAsJSON(t *testing.T) {
	data, err := json.Marshal(Result{Gates: []Row{near("x", 1, 2, .5)}})
	if want := `{"gates":[{"id":"","name":"x","expected":1,"got":2,"tolerance":0.5,"pass":false,"fitted":false}]}`; err != nil || string(data) != want {
		t.Errorf("%s %v", data, err)
	}
}
