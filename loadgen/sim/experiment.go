package sim

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Experiment runs policies on one scene with common random numbers: the same arrivals and prompts for every policy.
type Experiment struct {
	Scene    Scene
	Policies []string
	Seeds    int // 1 to Seeds
	SLO      SLO
	// Known are runs that need not be run again.
	Known []Record
	// Progress, if not nil, is told of answers as they come: done of all in a cell that is named. It may be called from
	// several goroutines.
	Progress func(cell string, done, all int)
	// Ended, if not nil, is called after each run, one at a time.
	Ended func(Record)
}

// Record is one run as the JSON has it.
type Record struct {
	Workload string  `json:"workload"`
	Policy   string  `json:"policy"`
	Seed     uint64  `json:"seed"`
	Pods     int     `json:"pods"` // of all roles
	Prefill  int     `json:"prefill_pods,omitempty"`
	Decode   int     `json:"decode_pods,omitempty"`
	Metrics  Metrics `json:"metrics"`

	Result *Result `json:"-"` // with its stages and engines; nil of a known run
}

// Run runs all cells, several at once, and returns them sorted by seed and, within, in the order of the policies.
func (e *Experiment) Run(ctx context.Context) ([]Record, error) {
	var mu sync.Mutex
	var records []Record
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for seed := uint64(1); seed <= uint64(e.Seeds); seed++ {
		w := sync.OnceValues(func() (*Workload, float64) { return e.workload(seed) })
		for _, policy := range e.Policies {
			if i := e.known(policy, seed); i >= 0 {
				records = append(records, e.Known[i])
				continue
			}
			group.Go(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				r, err := e.cell(w, policy, seed)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				records = append(records, r)
				if e.Ended != nil {
					e.Ended(r)
				}
				return nil
			})
		}
	}
	err := group.Wait()
	e.sort(records)
	return records, err
}

// workload makes a seed's arrivals, and the hit ratio that a pooled cache would have on them.
func (e *Experiment) workload(seed uint64) (*Workload, float64) {
	w := e.Scene.Make(seed)
	o, _ := e.Scene.Fleet.withDefaults()
	w.prompts = newPrompts(&w, o.BlockSize)
	return &w, Ideal(&w, int(float64(o.Engines()*o.Profile.KVTokens)*o.KV), o.BlockSize)
}

func (e *Experiment) cell(make func() (*Workload, float64), policy string, seed uint64) (Record, error) {
	w, ideal := make()
	o := e.Scene.Fleet
	o.Profile = o.Profile.Scale(e.Scene.Scale)
	o.Policy, o.Seed, o.SLO = policy, seed, e.SLO
	var progress func(int)
	if all := w.Requests(); e.Progress != nil {
		progress = func(done int) { e.Progress(fmt.Sprintf("%s %s seed %d", e.Scene.Name, policy, seed), done, all) }
	}
	result, err := Run(o, w, progress)
	if err != nil {
		return Record{}, err
	}
	if ideal > 0 {
		result.Metrics.CacheEfficiency = result.Metrics.HitRatio / ideal
	}
	return Record{Workload: e.Scene.Name, Policy: policy, Seed: seed, Pods: o.Engines(), Prefill: o.Prefill, Decode: o.Decode,
		Metrics: result.Metrics, Result: result}, nil
}

func (e *Experiment) known(policy string, seed uint64) int {
	fleet := e.Scene.Fleet
	return slices.IndexFunc(e.Known, func(r Record) bool {
		return r.Prefill == fleet.Prefill && r.Decode == fleet.Decode && r.Workload == e.Scene.Name && r.Policy == policy && r.Seed == seed && r.Pods == fleet.Engines()
	})
}

func (e *Experiment) sort(records []Record) {
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Seed, b.Seed), cmp.Compare(slices.Index(e.Policies, a.Policy), slices.Index(e.Policies, b.Policy)))
	})
}

// Summary is one metric of one policy over all seeds.
type Summary struct {
	Workload string   `json:"workload"`
	Policy   string   `json:"policy"`
	Metric   string   `json:"metric"`
	Mean     float64  `json:"mean"`
	CI95     Interval `json:"ci95"`
	Paired   *Paired  `json:"paired_vs_warm,omitempty"` // this policy less warm; absent of warm itself, and without warm
}

// Paired is a difference over runs with the same arrivals.
type Paired struct {
	Diff float64  `json:"diff"`
	CI95 Interval `json:"ci95"`
}

// summed are the metrics that Summarize compares, and where they are.
var summed = []struct {
	name string
	of   func(*Metrics) float64
}{
	{"output_tok_s", func(m *Metrics) float64 { return m.OutputTokS }},
	{"goodput", func(m *Metrics) float64 { return m.Goodput }},
	{"goodput_length_aware", func(m *Metrics) float64 { return m.GoodputLengthAware }},
	{"ttft_mean_s", func(m *Metrics) float64 { return m.TTFTMean }},
	{"ttft_p50_s", func(m *Metrics) float64 { return m.TTFTP50 }},
	{"ttft_p90_s", func(m *Metrics) float64 { return m.TTFTP90 }},
	{"ttft_p99_s", func(m *Metrics) float64 { return m.TTFTP99 }},
	{"tpot_mean_s", func(m *Metrics) float64 { return m.TPOTMean }},
	{"hit_ratio", func(m *Metrics) float64 { return m.HitRatio }},
	{"busy_max_over_mean", func(m *Metrics) float64 { return m.BusyMaxOverMean }},
}

// Summarize gives the mean of each metric with its interval, and the paired difference to warm.
func Summarize(records []Record) (all []Summary) {
	var order []string
	byPolicy := map[string][]Record{}
	for _, r := range records {
		if byPolicy[r.Policy] == nil {
			order = append(order, r.Policy)
		}
		byPolicy[r.Policy] = append(byPolicy[r.Policy], r)
	}
	for _, policy := range order {
		for _, metric := range summed {
			own := values(byPolicy[policy], metric.of)
			s := Summary{Workload: byPolicy[policy][0].Workload, Policy: policy, Metric: metric.name}
			s.Mean, s.CI95 = MeanInterval(own)
			if warm := byPolicy["warm"]; policy != "warm" && len(warm) == len(own) {
				p := Paired{}
				p.Diff, p.CI95 = PairedInterval(own, values(warm, metric.of), 1)
				s.Paired = &p
			}
			all = append(all, s)
		}
	}
	return all
}

func values(records []Record, of func(*Metrics) float64) (v []float64) {
	for i := range records {
		v = append(v, of(&records[i].Metrics))
	}
	return v
}
