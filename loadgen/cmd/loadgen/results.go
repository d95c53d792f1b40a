package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/report"
	"github.com/warmpath/warmpath/loadgen/sim"
)

// simulation is the JSON of loadgen simulate and loadgen sweep. It may hold runs of many commands.
type simulation struct {
	report.Header
	SLO struct {
		TTFT float64 `json:"ttft_s"`
		ITL  float64 `json:"itl_s"`
	} `json:"slo"` // of the last command; each run's own is in its setup
	Scale   float64              `json:"scale"` // of the last command's first workload
	Runs    []sim.Record         `json:"runs"`
	Summary []sim.Summary        `json:"summary"`
	Setups  map[string]sim.Setup `json:"setups"` // by the key that runs name
	Sweep   []report.Axis        `json:"sweep,omitempty"`
}

// results is a file of runs that grows with each one.
type results struct {
	path string
	code string
	simulation
}

// openResults reads what the file has, if there is one. Runs of other code than this are left out of the setups that
// are asked for, as they could not be compared with what comes.
func openResults(ctx context.Context, path string, slo sim.SLO, scenes []sim.Scene) (*results, error) {
	f := &results{path: path, code: codeVersion(ctx, simulated...)}
	f.Header, f.Setups = report.NewHeader(1, time.Now()), map[string]sim.Setup{}
	f.SLO.TTFT, f.SLO.ITL, f.Scale = slo.TTFT.Seconds(), slo.ITL.Seconds(), scenes[0].Scale
	var old simulation
	if path != "" {
		data, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("read earlier runs: %w", err)
		default:
			if err := json.Unmarshal(data, &old); err != nil {
				return nil, fmt.Errorf("%s holds no runs of this command; move it away or name another --json: %w", path, err)
			}
		}
	}
	asked := map[string]bool{}
	for i := range scenes {
		setup := scenes[i].Setup(slo)
		asked[scenes[i].Name+setup.Key()] = true
		f.Setups[setup.Key()] = setup
	}
	stale := 0
	for _, r := range old.Runs {
		if asked[r.Workload+r.Setup] && r.Code != f.code {
			stale++
			continue
		}
		if setup, ok := old.Setups[r.Setup]; ok {
			f.Runs, f.Setups[r.Setup] = append(f.Runs, r), setup
		}
	}
	if stale > 0 {
		fmt.Fprintf(os.Stderr, "%s: %d runs were made by other code and are made anew.\n", path, stale)
	}
	f.Sweep = old.Sweep
	if err := f.write(); err != nil { // now, rather than after an hour of runs
		return nil, fmt.Errorf("--json: %w", err)
	}
	return f, nil
}

// run runs the cells that the file has not and writes the file after each.
func (f *results) run(ctx context.Context, cells []sim.Cell) ([]sim.Record, error) {
	e := sim.Experiment{Cells: cells, Code: f.code, Known: slices.Clone(f.Runs)} // Run reads Known while runs end
	missing := e.Missing()
	if known := len(cells) - len(missing); known > 0 && f.path != "" {
		fmt.Fprintf(os.Stderr, "%d of %d runs are in %s already.\n", known, len(cells), f.path)
	}
	if len(missing) > 0 {
		took, how, err := expected(missing, f.Runs)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "%d runs, about %v on %d cores (%s).\n", len(missing), took, runtime.GOMAXPROCS(0), how)
	}
	show := newRunProgress(len(missing))
	e.Progress = show.progress
	e.Ended = func(r sim.Record) {
		show.ended()
		f.Runs = append(f.Runs, r)
		_ = f.write() // the last writing is the one that counts
	}
	records, err := e.Run(ctx)
	show.finish()
	f.sort()
	f.Summary = sim.Summarize(f.Runs)
	return records, errors.Join(err, f.write())
}

// sort puts runs in order of workload, setup, seed and policy, ours first: those that run at once end in any order.
func (f *results) sort() {
	policies := append(sim.Policies(), sim.Ablations()...)
	slices.SortStableFunc(f.Runs, func(a, b sim.Record) int {
		return cmp.Or(cmp.Compare(slices.Index(workloads, a.Workload), slices.Index(workloads, b.Workload)), cmp.Compare(a.Setup, b.Setup),
			cmp.Compare(a.Seed, b.Seed), cmp.Compare(slices.Index(policies, a.Policy), slices.Index(policies, b.Policy)))
	})
}

func (f *results) write() error {
	if f.Runs == nil {
		f.Runs = []sim.Record{}
	}
	if f.Summary == nil {
		f.Summary = []sim.Summary{} // until the last run has ended
	}
	return daemon.WriteJSON(f.path, f.simulation)
}

// simulated are the folders whose code a run's result depends on.
var simulated = []string{"loadgen/sim", "loadgen/enginesim", "loadgen/workload", "services/router/policy", "services/router/ledger",
	"services/router/internal/placements", "libs/prefix", "libs/blockkey", "libs/kvevent", "libs/lru"}

// codeVersion names the code that simulates: a hash over its files as the checkout has them, changes included. Empty
// outside a checkout, where nothing tells.
func codeVersion(ctx context.Context, folders ...string) string {
	var paths []string
	for _, folder := range folders {
		paths = append(paths, ":(top,glob)"+folder+"/*.go")
	}
	paths = append(paths, ":(top,exclude,glob)**/*_test.go")
	h := fnv.New64a()
	for _, command := range [][]string{{"ls-files", "-s", "--"}, {"diff", "HEAD", "--"}} {
		out, err := exec.CommandContext(ctx, "git", append(command, paths...)...).Output()
		if err != nil {
			return ""
		}
		h.Write(out)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// trialShare is the share of each stage that a trial runs.
const trialShare = .05

// expected says how long the cells take together, and what that is known from: runs of the same workloads, or a trial.
func expected(cells []sim.Cell, known []sim.Record) (took time.Duration, how string, err error) {
	mean := map[string]float64{}
	var earlier, tried []string
	sum := 0.
	for i := range cells {
		name := cells[i].Scene.Name
		if _, ok := mean[name]; !ok {
			total, n := 0., 0
			for _, r := range known {
				if r.Workload == name && r.Took > 0 {
					total, n = total+r.Took, n+1
				}
			}
			if n > 0 {
				mean[name], earlier = total/float64(n), append(earlier, name)
			} else if mean[name], err = trial(&cells[i]); err != nil {
				return 0, "", err
			} else {
				tried = append(tried, name)
			}
		}
		sum += mean[name]
	}
	if len(earlier) > 0 {
		how = "as earlier runs of " + strings.Join(earlier, ", ")
	}
	if len(tried) > 0 {
		how = strings.TrimPrefix(fmt.Sprintf("%s, from a trial of a twentieth of %s", how, strings.Join(tried, ", ")), ", ")
	}
	took = time.Duration(sum / float64(min(len(cells), runtime.GOMAXPROCS(0))) * float64(time.Second))
	return max(took.Round(time.Second), time.Second), how, nil
}

// trial runs the first part of a cell, and says how many seconds the whole would take.
func trial(c *sim.Cell) (float64, error) {
	began := time.Now()
	w := c.Scene.Make(c.Seed)
	made := time.Since(began)
	part := w.Part(trialShare)
	began = time.Now()
	if _, err := sim.Run(c.Options(), &part, nil); err != nil {
		return 0, fmt.Errorf("%s: %w", c.Name(), err)
	}
	share := float64(part.Requests()) / float64(max(1, w.Requests()))
	return made.Seconds() + time.Since(began).Seconds()/max(share, trialShare/10), nil
}
