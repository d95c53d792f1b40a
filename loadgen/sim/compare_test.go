package sim

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The interval of Student's sleep data (1908), as every textbook prints it.
func TestMeanIntervalOfStudentsSleep(t *testing.T) {
	m, ci := MeanInterval([]float64{1.2, 2.4, 1.3, 1.3, 0, 1.0, 1.8, 0.8, 4.6, 1.4})
	if math.Abs(m-1.58) > 1e-9 || math.Abs(ci[0]-.7001) > 1e-3 || math.Abs(ci[1]-2.4599) > 1e-3 {
		t.Errorf("%.4f %.4f", m, ci)
	}
}

// Of intervals at 95 % about one in twenty misses the truth.
func TestPairedIntervalCoversTheTruth(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	missed := 0
	const trials = 200
	for trial := range trials {
		var a, b []float64
		for range 30 {
			common := 100 * rng.NormFloat64()
			a, b = append(a, common+1+rng.NormFloat64()), append(b, common)
		}
		if _, ci := PairedInterval(a, b, uint64(trial)); ci[0] > 1 || ci[1] < 1 {
			missed++
		}
	}
	if missed > trials/7 {
		t.Errorf("%d of %d intervals miss", missed, trials)
	}
	if d, ci := PairedInterval([]float64{5}, []float64{3}, 1); d != 2 || ci != (Interval{2, 2}) {
		t.Errorf("of one run: %v %v", d, ci)
	}
}

func TestExperimentsPairTheSameArrivals(t *testing.T) {
	var ended int
	e := Experiment{
		Scene: Scene{Name: "small", Fleet: tight(""), Scale: 1, Make: small}, Policies: []string{"warm", "random"}, Seeds: 3,
		Ended: func(Record) { ended++ },
	}
	records, err := e.Run(t.Context())
	if err != nil || len(records) != 6 || ended != 6 {
		t.Fatalf("%d records, %d told, %v", len(records), ended, err)
	}
	for i, r := range records {
		if r.Seed != uint64(1+i/2) || r.Policy != e.Policies[i%2] || r.Metrics.Offered != records[i/2*2].Metrics.Offered {
			t.Errorf("record %d is %s seed %d with %d requests", i, r.Policy, r.Seed, r.Metrics.Offered)
		}
		if r.Metrics.CacheEfficiency <= 0 || r.Metrics.CacheEfficiency > 1.2 {
			t.Errorf("cache efficiency %v", r.Metrics.CacheEfficiency)
		}
	}
	e.Known, e.Ended = records, func(r Record) { t.Errorf("%s seed %d is run again", r.Policy, r.Seed) }
	again, err := e.Run(t.Context())
	if err != nil || len(again) != 6 {
		t.Fatalf("%d records from those known, %v", len(again), err)
	}
	for _, s := range Summarize(records) {
		if (s.Paired == nil) != (s.Policy == "warm") || s.CI95[0] > s.Mean || s.CI95[1] < s.Mean {
			t.Errorf("%+v", s)
		}
		if s.Metric == "hit_ratio" && s.Policy == "random" && s.Paired.CI95[1] >= 0 {
			t.Errorf("random hits as much as warm: %+v", s)
		}
	}
}
