package sim

// Summary is one metric of one policy over all seeds.
type Summary struct {
	Workload string   `json:"workload"`
	Setup    string   `json:"setup"`
	Policy   string   `json:"policy"`
	Metric   string   `json:"metric"`
	Seeds    int      `json:"seeds"`
	Mean     float64  `json:"mean"`
	CI95     Interval `json:"ci95"`
	Paired   *Paired  `json:"paired_vs_warm,omitempty"` // this policy less warm; absent of warm itself, and where no seed has both
}

// Paired is a difference over runs with the same arrivals.
type Paired struct {
	Diff float64  `json:"diff"`
	CI95 Interval `json:"ci95"`
}

// Metric names one of the figures of a run.
type Metric struct {
	Name string
	Of   func(*Metrics) float64
}

// Compared are the metrics that Summarize compares, by their names in the JSON.
func Compared() []Metric {
	return []Metric{
		{"output_tok_s", func(m *Metrics) float64 { return m.OutputTokS }},
		{"goodput", func(m *Metrics) float64 { return m.Goodput }},
		{"goodput_length_aware", func(m *Metrics) float64 { return m.GoodputLengthAware }},
		{"ttft_mean_s", func(m *Metrics) float64 { return m.TTFTMean }},
		{"ttft_p50_s", func(m *Metrics) float64 { return m.TTFTP50 }},
		{"ttft_p90_s", func(m *Metrics) float64 { return m.TTFTP90 }},
		{"ttft_p99_s", func(m *Metrics) float64 { return m.TTFTP99 }},
		{"tpot_mean_s", func(m *Metrics) float64 { return m.TPOTMean }},
		{"hit_ratio", func(m *Metrics) float64 { return m.HitRatio }},
		{"cache_efficiency", func(m *Metrics) float64 { return m.CacheEfficiency }},
		{"busy_max_over_mean", func(m *Metrics) float64 { return m.BusyMaxOverMean }},
	}
}

// Summarize gives, for each workload and setup, each policy's mean of each metric over its seeds with its interval, and
// the difference to warm over the seeds that both have. Groups come in the order in which they are first seen.
func Summarize(records []Record) (all []Summary) {
	for _, group := range split(records, func(r *Record) string { return r.Workload + " " + r.Setup }) {
		policies := split(group, func(r *Record) string { return r.Policy })
		var warm []Record
		for _, p := range policies {
			if p[0].Policy == "warm" {
				warm = p
			}
		}
		for _, own := range policies {
			for _, metric := range Compared() {
				all = append(all, summarize(metric, own, warm))
			}
		}
	}
	return all
}

func summarize(metric Metric, own, warm []Record) Summary {
	s := Summary{Workload: own[0].Workload, Setup: own[0].Setup, Policy: own[0].Policy, Metric: metric.Name, Seeds: len(own)}
	var values, a, b []float64
	for i := range own {
		value := metric.Of(&own[i].Metrics)
		values = append(values, value)
		for j := range warm {
			if warm[j].Seed == own[i].Seed {
				a, b = append(a, value), append(b, metric.Of(&warm[j].Metrics))
			}
		}
	}
	s.Mean, s.CI95 = MeanInterval(values)
	if s.Policy != "warm" && len(a) > 0 {
		p := Paired{}
		p.Diff, p.CI95 = PairedInterval(a, b, 1)
		s.Paired = &p
	}
	return s
}

// split divides records by a name, in the order in which names are first seen.
func split(records []Record, name func(*Record) string) (all [][]Record) {
	at := map[string]int{}
	for i := range records {
		key := name(&records[i])
		n, ok := at[key]
		if !ok {
			n = len(all)
			at[key], all = n, append(all, nil)
		}
		all[n] = append(all[n], records[i])
	}
	return all
}
