package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/elastic"
	"github.com/warmpath/warmpath/loadgen/report"
)

// scaling is the JSON of loadgen autoscale. It may hold runs of many commands.
type scaling struct {
	report.Header
	SLO struct {
		TTFT float64 `json:"ttft_s"`
		ITL  float64 `json:"itl_s"`
	} `json:"slo"` // of the last command
	Rate    float64           `json:"rate_scale"` // of the last command's first workload; each run has its own
	GPUs    map[string]int    `json:"gpus_per_replica"`
	Runs    []elastic.Record  `json:"runs"`
	Summary []elastic.Summary `json:"summary"`
	Fronts  []elastic.Front   `json:"fronts,omitempty"` // of ours, where several headrooms were run
}

// scalings is a file of runs that grows with each one.
type scalings struct {
	path, code string
	scaling
}

// openScalings reads what the file has, if there is one.
func openScalings(ctx context.Context, path string, g elastic.Grid) (*scalings, error) {
	f := &scalings{path: path, code: codeVersion(ctx, scaled...)}
	f.Header, f.Rate, f.GPUs = report.NewHeader(1, time.Now()), g.Works[0].Rate, elastic.GPUs()
	f.SLO.TTFT, f.SLO.ITL = g.SLO.TTFT.Seconds(), g.SLO.ITL.Seconds()
	if path == "" {
		return f, nil
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read earlier runs: %w", err)
	default:
		var old scaling
		if err := json.Unmarshal(data, &old); err != nil {
			return nil, fmt.Errorf("%s holds no runs of this command; move it away or name another --json: %w", path, err)
		}
		f.keep(old.Runs)
	}
	if err := f.write(); err != nil { // now, rather than after an hour of runs
		return nil, fmt.Errorf("--json: %w", err)
	}
	return f, nil
}

// keep takes over earlier runs of this code: others could not be compared with what comes.
func (f *scalings) keep(runs []elastic.Record) {
	for _, r := range runs {
		if r.Code == f.code {
			f.Runs = append(f.Runs, r)
		}
	}
	if stale := len(runs) - len(f.Runs); stale > 0 {
		fmt.Fprintf(os.Stderr, "%s: %d runs were made by other code and are left out.\n", f.path, stale)
	}
}

// run runs the cells that the file has not and writes the file after each.
func (f *scalings) run(ctx context.Context, cells []elastic.Cell) ([]elastic.Record, error) {
	e := elastic.Experiment{Cells: cells, Code: f.code, Known: slices.Clone(f.Runs)}
	missing := e.Missing()
	if known := len(cells) - len(missing); known > 0 && f.path != "" {
		fmt.Fprintf(os.Stderr, "%d of %d runs are in %s already.\n", known, len(cells), f.path)
	}
	if len(missing) > 0 {
		took, err := elastic.Expected(missing)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "%d runs, about %v on %d cores (from a trial).\n", len(missing), took, runtime.GOMAXPROCS(0))
	}
	show := newRunProgress(len(missing))
	e.Progress = show.progress
	e.Ended = func(r elastic.Record) {
		show.ended()
		f.Runs = append(f.Runs, r)
		_ = f.write() // the last writing is the one that counts
	}
	records, err := e.Run(ctx)
	show.finish()
	f.sort()
	elastic.AgainstOffline(f.Runs)
	f.Summary, f.Fronts = elastic.Summarize(f.Runs), elastic.Fronts(f.Runs)
	return records, errors.Join(err, f.write())
}

// sort puts runs in order of workload, start-up time, seed, service, policy and headroom: those that run at once end in
// any order.
func (f *scalings) sort() {
	slices.SortStableFunc(f.Runs, func(a, b elastic.Record) int {
		at := slices.Index[[]string, string]
		return cmp.Or(cmp.Compare(at(elastic.Names(), a.Workload), at(elastic.Names(), b.Workload)), cmp.Compare(a.Setup, b.Setup),
			cmp.Compare(a.Startup, b.Startup), cmp.Compare(a.Service, b.Service),
			cmp.Compare(at(elastic.Policies(), a.Policy), at(elastic.Policies(), b.Policy)), cmp.Compare(a.Variant, b.Variant),
			cmp.Compare(a.Headroom, b.Headroom), cmp.Compare(a.Seed, b.Seed))
	})
}

func (f *scalings) write() error {
	if f.path == "" {
		return nil
	}
	if f.Runs == nil {
		f.Runs = []elastic.Record{}
	}
	if f.Summary == nil {
		f.Summary = []elastic.Summary{} // until the last run has ended
	}
	return daemon.WriteJSON(f.path, f.scaling)
}

// scaled are the folders whose code a run's result depends on.
var scaled = append(slices.Clone(simulated), "loadgen/elastic", "loadgen/scalers", "services/autoscaler/decide", "services/router/queue")
