package elastic

import (
	"fmt"
	"slices"

	"github.com/warmpath/warmpath/loadgen/sim"
)

// Group is the runs that differ by seed alone.
type Group struct {
	Workload string  `json:"workload"`
	Policy   string  `json:"policy"`
	Variant  string  `json:"variant"`
	Service  Service `json:"service"`
	Startup  float64 `json:"startup_s"`
	Headroom float64 `json:"headroom,omitempty"`
	Setup    string  `json:"setup"`
}

// Summary is one metric over the seeds of a group.
type Summary struct {
	Group
	Metric string       `json:"metric"`
	Seeds  int          `json:"seeds"`
	Mean   float64      `json:"mean"`
	CI95   sim.Interval `json:"ci95"`             // Student's t over seeds
	Paired *Paired      `json:"paired,omitempty"` // this group less warmpath at its default headroom, on the same seeds; absent of warmpath itself
}

// Paired is a difference over runs with the same requests, engines and start-up times.
type Paired struct {
	Diff  float64      `json:"diff"`
	CI95  sim.Interval `json:"ci95"`  // bootstrap
	Share float64      `json:"share"` // the mean of both, this over that; 0 where that is 0
}

// Metric names one of the figures of a run.
type Metric struct {
	Name string
	Of   func(*Metrics) float64
}

// Compared are the metrics that Summarize compares, by their names in the JSON; those of roles are summed.
func Compared() []Metric {
	return []Metric{
		{"joint_attainment", func(m *Metrics) float64 { return m.Joint }},
		{"joint_attainment_feasible", func(m *Metrics) float64 { return m.Feasible }},
		{"gpu_s", func(m *Metrics) float64 { return m.GPU }},
		{"avg_replicas", func(m *Metrics) float64 { return m.Avg["prefill"] + m.Avg["decode"] }},
		{"flips_per_h", func(m *Metrics) float64 { return max(m.Flips["prefill"], m.Flips["decode"]) }},
		{"worst_5min", func(m *Metrics) float64 { return m.Worst }},
		{"ttft_p99_s", func(m *Metrics) float64 { return m.TTFT99 }},
		{"ttft_p999_s", func(m *Metrics) float64 { return m.TTFT999 }},
		{"lost_requests", func(m *Metrics) float64 { return float64(m.Lost) }},
	}
}

func (r *Record) group() Group {
	return Group{r.Workload, r.Policy, r.Variant, r.Service, r.Startup, r.Headroom, r.Setup}
}

// scene is what records have in common that can be compared.
func (g Group) scene() string { return fmt.Sprint(g.Workload, g.Service, g.Startup, g.Setup) }

// Summarize gives each group's mean of each metric over its seeds, and the difference to ours over the seeds that both
// have. Groups come in the order in which they are first seen.
func Summarize(records []Record) (all []Summary) {
	ours := map[string][]*Record{}
	for i := range records {
		if r := &records[i]; r.Policy == Ours && r.Headroom == 0 {
			ours[r.group().scene()] = append(ours[r.group().scene()], r)
		}
	}
	for _, own := range groups(records) {
		for _, m := range Compared() {
			all = append(all, summarize(m, own, ours[own[0].group().scene()]))
		}
	}
	return all
}

func groups(records []Record) (all [][]*Record) {
	at := map[Group]int{}
	for i := range records {
		g := records[i].group()
		n, ok := at[g]
		if !ok {
			n = len(all)
			at[g], all = n, append(all, nil)
		}
		all[n] = append(all[n], &records[i])
	}
	return all
}

func summarize(m Metric, own, ours []*Record) Summary {
	s := Summary{Group: own[0].group(), Metric: m.Name, Seeds: len(own)}
	var values, a, b []float64
	for _, r := range own {
		values = append(values, m.Of(&r.Metrics))
		if i := slices.IndexFunc(ours, func(o *Record) bool { return o.Seed == r.Seed }); i >= 0 {
			a, b = append(a, m.Of(&r.Metrics)), append(b, m.Of(&ours[i].Metrics))
		}
	}
	s.Mean, s.CI95 = sim.MeanInterval(values)
	if (s.Policy != Ours || s.Headroom != 0) && len(a) > 0 {
		p := Paired{}
		p.Diff, p.CI95 = sim.PairedInterval(a, b, 1)
		if _, own := 0, sum(b); own != 0 {
			p.Share = sum(a) / own
		}
		s.Paired = &p
	}
	return s
}

func sum(values []float64) (s float64) {
	for _, v := range values {
		s += v
	}
	return s
}

// Front is what a policy's fleet costs at given shares of good answers among the requests that can be served in time,
// by linear interpolation over its headrooms.
type Front struct {
	Workload string   `json:"workload"`
	Service  Service  `json:"service"`
	Startup  float64  `json:"startup_s"`
	Setup    string   `json:"setup"`
	Points   []Point  `json:"points"`
	At99     *float64 `json:"gpu_s_at_99"` // null where no headroom reaches it
	At95     *float64 `json:"gpu_s_at_95"`
	Below99  bool     `json:"below_99,omitempty"` // the least headroom reaches it already: it may cost less
	Below95  bool     `json:"below_95,omitempty"`
}

// Point is one headroom: means over the seeds.
type Point struct {
	Headroom float64 `json:"headroom"` // 0 is the default
	Feasible float64 `json:"joint_attainment_feasible"`
	GPU      float64 `json:"gpu_s"`
}

// Fronts are those of ours, one for each scene that has several headrooms.
func Fronts(records []Record) (all []Front) {
	at := map[string]int{}
	for _, own := range groups(records) {
		g := own[0].group()
		if g.Policy != Ours {
			continue
		}
		n, ok := at[g.scene()]
		if !ok {
			n = len(all)
			at[g.scene()], all = n, append(all, Front{Workload: g.Workload, Service: g.Service, Startup: g.Startup, Setup: g.Setup})
		}
		p := Point{Headroom: g.Headroom}
		for _, r := range own {
			p.Feasible += r.Metrics.Feasible / float64(len(own))
			p.GPU += r.Metrics.GPU / float64(len(own))
		}
		all[n].Points = append(all[n].Points, p)
	}
	all = slices.DeleteFunc(all, func(f Front) bool { return len(f.Points) < 2 })
	for i := range all {
		f := &all[i]
		f.At99, f.Below99 = cost(f.Points, .99)
		f.At95, f.Below95 = cost(f.Points, .95)
	}
	return all
}

// cost is the least cost of a share, between points by cost. below says that the cheapest point has it already.
func cost(points []Point, share float64) (gpu *float64, below bool) {
	points = slices.Clone(points)
	slices.SortFunc(points, func(a, b Point) int { return compare(a.GPU, b.GPU) })
	for i, p := range points {
		if p.Feasible < share {
			continue
		}
		at := p.GPU
		if i > 0 {
			q := points[i-1]
			at = q.GPU + (share-q.Feasible)/(p.Feasible-q.Feasible)*(p.GPU-q.GPU)
		}
		return &at, i == 0
	}
	return nil, false
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// AgainstOffline fills in what each run's fleet costs over that of offline-optimum on the same requests, where that was
// run.
func AgainstOffline(records []Record) {
	type run struct {
		scene string
		seed  uint64
	}
	of := func(r *Record) run { return run{r.group().scene(), r.Seed} }
	best := map[run]float64{}
	for i := range records {
		if r := &records[i]; r.Policy == offline {
			best[of(r)] = r.Metrics.GPU
		}
	}
	for i := range records {
		r := &records[i]
		if gpu := best[of(r)]; gpu > 0 {
			share := r.Metrics.GPU / gpu
			r.Metrics.ToOffline = &share
		}
	}
}
