package gates

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/sim"
)

// published is one of llm-d's tables of routing policies, and the fleet that stands for its test bed.
type published struct {
	id     string
	file   string // of the calibration folder
	scale  float64
	fitted bool // constants were chosen with the table in view
	fleet  sim.Options
	work   func(seed uint64) sim.Workload
	// columns are the table's policies, from the best to those that do not look at prefixes.
	columns  []column
	collapse [2]float64 // rates between which the second policy first makes requests wait
	weight   float64    // of one policy
}

// column is a policy of a table and of ours.
type column struct {
	published, short, policy string
	tolerance                float64 // of its throughput
}

// collapsed is a mean TTFT at which a fleet no longer keeps up: no stage below a table's collapse reaches it.
const collapsed = 2.0

// tables are both published tables, the second at two factors on step times: 1.13 is a figure published for vLLM 0.19,
// 1.2 fits the table best.
func tables() []published {
	columns := func(second string) []column {
		return []column{
			{"precise-scheduling", "precise", "precise-2025", .20}, {second + "-scheduling", second, "approx-2025", .20},
			{"random-scheduling", "random", "random", .20}, {"load-scheduling", "load", sim.LoadOnly, .30},
		}
	}
	llama := published{
		id: "37", file: "llmd_37capacity_published.csv.gz", scale: 1, work: sim.W2, columns: columns("default"), collapse: [2]float64{15, 20},
		fleet: sim.Options{Pods: 4, Profile: enginesim.Llama31_70B_TP4, FrontEnd: 130 * time.Millisecond}, weight: 4,
	}
	qwen := published{
		id: "73", file: "llmd_73capacity_published.csv.gz", scale: 1.2, fitted: true, work: sim.W1,
		columns: columns("estimated"), collapse: [2]float64{30, 40},
		fleet: sim.Options{Pods: 8, Profile: enginesim.Qwen3_32B_TP2_H100, FrontEnd: 200 * time.Millisecond}, weight: 9,
	}
	faster := qwen
	faster.id, faster.scale = "73-scale-1.13", 1.13
	return []published{llama, qwen, faster}
}

// Published returns the gates of 2.3, one for each table; find finds the tables' files. Table 73 is gated at the scale
// that fits it best, and reported at the other.
func Published(find func(name string) (path string, ok bool)) (all []Gate) {
	for _, t := range tables() {
		g := Gate{ID: "2.3/" + t.id, Weight: t.weight * float64(len(t.columns)), Reported: t.id == "73-scale-1.13"}
		if path, ok := find(t.file); ok {
			g.Run = func() ([]Row, error) { return t.run(path) }
		} else {
			g.Missing = "the published table is not at hand"
		}
		all = append(all, g)
	}
	return all
}

// figures are a policy's rows in a published table.
type figures struct {
	rates, tokS, mean []float64
}

// readPublished reads a table: its figures by the names of policies, in order of the rate.
func readPublished(path string) (map[string]*figures, error) {
	t, err := readTable(path)
	if err != nil {
		return nil, err
	}
	all := map[string]*figures{}
	for t.next() {
		name := t.text("policy")
		f := all[name]
		if f == nil {
			f = &figures{}
			all[name] = f
		}
		f.rates, f.tokS, f.mean = append(f.rates, t.number("qps")), append(f.tokS, t.number("out_tok_s")), append(f.mean, t.number("ttft_mean_s"))
		if !slices.IsSorted(f.rates) {
			return nil, fmt.Errorf("%s: %w: rates are not in order", path, errTable)
		}
	}
	return all, t.err
}

// run simulates the table's policies and compares.
func (p *published) run(path string) ([]Row, error) {
	all, err := readPublished(path)
	if err != nil {
		return nil, err
	}
	w := p.work(1)
	results := make([]*sim.Result, len(p.columns))
	var group errgroup.Group
	for i, c := range p.columns {
		group.Go(func() error {
			o := p.fleet
			o.Profile, o.Policy, o.Seed = o.Profile.Scale(p.scale), c.policy, 1
			r, err := sim.Run(o, &w, nil)
			if err != nil {
				return fmt.Errorf("simulate %s: %w", c.policy, err)
			}
			r.Stages = slices.DeleteFunc(r.Stages, func(s sim.StageResult) bool { return s.WarmUp })
			results[i] = r
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, c := range p.columns {
		f := all[c.published]
		if f == nil || len(f.rates) != len(results[i].Stages) {
			return nil, fmt.Errorf("%s: %w: %s has not the stages that were simulated", path, errTable, c.published)
		}
	}
	return p.compare(all, results), nil
}

// compare makes the rows of one table.
func (p *published) compare(all map[string]*figures, results []*sim.Result) (rows []Row) {
	add := func(policy, figure string, fitted bool, r Row) {
		r.ID, r.Fitted = "2.3/"+p.id+"/"+policy+"/"+figure, fitted
		rows = append(rows, r)
	}
	got := make([]float64, len(results))
	for i, c := range p.columns {
		f, m := all[c.published], &results[i].Metrics
		got[i] = m.OutputTokS
		r := near("output tok/s, mean of the stages", mean(f.tokS), got[i], c.tolerance)
		r.Note = fmt.Sprintf("TTFT mean %.3f s, p90 %.3f s; published mean of the stages %.3f s", m.TTFTMean, m.TTFTP90, mean(f.mean))
		add(c.short, "output_tok_s", p.fitted, r)
	}
	add(p.columns[0].short, "order", p.fitted,
		holds("more output tok/s than "+p.columns[1].short, got[0] > got[1], "%.0f against %.0f", got[0], got[1]))
	add(p.columns[1].short, "order", p.fitted, holds("more output tok/s than random and load", got[1] > max(got[2], got[3]),
		"%.0f against %.0f and %.0f", got[1], got[2], got[3]))
	rates := all[p.columns[1].published].rates
	add(p.columns[1].short, "collapse_qps", p.fitted, p.collapses(rates, results[1]))
	if p.fleet.Pods == 8 {
		low := results[2].Stages[0].TTFTMean - p.fleet.FrontEnd.Seconds()
		add("random", "miss_ttft_s", p.fitted, between("mean TTFT at 3 requests a second less the front end, s", .34, .46, low))
		add("precise", "hit_ratio", false, between("hit ratio from 20 requests a second up", .96, .98, hitRatio(rates, results[0])))
		add("random", "hit_ratio", false, between("hit ratio from 20 requests a second up", .17, .22, hitRatio(rates, results[2])))
	}
	return rows
}

// collapses is the first rate at which a policy's requests wait: above the lower bound, at most the upper one.
func (p *published) collapses(rates []float64, r *sim.Result) Row {
	first := 0. // never
	for i, s := range r.Stages {
		if s.TTFTMean > collapsed {
			first = rates[i]
			break
		}
	}
	low := p.collapse[1]
	for _, rate := range rates {
		if rate > p.collapse[0] {
			low = min(low, rate)
		}
	}
	row := between("first rate at which TTFT is over 2 s in the mean", low, p.collapse[1], first)
	for i, s := range r.Stages {
		row.Note += fmt.Sprintf("%.2g s at %g; ", s.TTFTMean, rates[i])
	}
	return row
}

// hitRatio is the mean over the stages of at least 20 requests a second.
func hitRatio(rates []float64, r *sim.Result) float64 {
	var all []float64
	for i, s := range r.Stages {
		if rates[i] >= 20 {
			all = append(all, s.HitRatio)
		}
	}
	return mean(all)
}

func mean(values []float64) (m float64) {
	for _, v := range values {
		m += v
	}
	return m / float64(max(1, len(values)))
}
