package sim

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
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

// quick is an experiment on workloads of a second.
func quick() Experiment {
	return Experiment{Code: "a", Cells: Cross(
		[]Scene{{Name: "small", Arrivals: "small", Fleet: tight(""), Scale: 1, Make: small}}, []string{"warm", "random"}, 3, SLO{})}
}

func TestExperimentsPairTheSameArrivals(t *testing.T) {
	var ended int
	e := quick()
	e.Ended = func(Record) { ended++ }
	records, err := e.Run(t.Context())
	if err != nil || len(records) != 6 || ended != 6 {
		t.Fatalf("%d records, %d told, %v", len(records), ended, err)
	}
	for i, r := range records {
		if r.Seed != e.Cells[i].Seed || r.Policy != e.Cells[i].Policy || r.Metrics.Offered != records[i/2*2].Metrics.Offered {
			t.Errorf("record %d is %s seed %d with %d requests", i, r.Policy, r.Seed, r.Metrics.Offered)
		}
		if r.Metrics.CacheEfficiency <= 0 || r.Metrics.CacheEfficiency > 1.2 {
			t.Errorf("cache efficiency %v", r.Metrics.CacheEfficiency)
		}
		if (r.Load != nil) != (r.Seed == 1) || len(r.ByLoad) != 2 || r.Setup != records[0].Setup {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	for _, s := range Summarize(records) {
		if (s.Paired == nil) != (s.Policy == "warm") || s.CI95[0] > s.Mean || s.CI95[1] < s.Mean || s.Seeds != 3 {
			t.Errorf("%+v", s)
		}
		if s.Metric == "hit_ratio" && s.Policy == "random" && s.Paired.CI95[1] >= 0 {
			t.Errorf("random hits as much as warm: %+v", s)
		}
	}
}

// A cell that cannot be run is told of before hours of others, whatever its place.
func TestImpossibleCellsAreToldFirst(t *testing.T) {
	e := quick()
	e.Ended = func(r Record) { t.Errorf("%s was run", r.Policy) }
	last := e.Cells[0]
	last.Policy, last.Scene.Fleet.Prefill, last.Scene.Fleet.Decode = "warm-no-tie", 1, 1
	e.Cells = append(e.Cells, last)
	if _, err := e.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "warm-no-tie") {
		t.Errorf("%v", err)
	}
}

// What is known is not run again, unless anything that its result depends on is another.
func TestKnownRunsAreThoseOfTheSameSetup(t *testing.T) {
	e := quick()
	e.Cells = append(e.Cells, e.Cells[0])
	known, err := e.Run(t.Context())
	if err != nil || len(known) != 7 || known[6].Took != known[0].Took {
		t.Fatalf("%d records of a cell asked for twice, %v", len(known), err)
	}
	for name, c := range map[string]struct {
		change func(*Experiment)
		again  int
	}{
		"nothing":     {func(*Experiment) {}, 0},
		"code":        {func(e *Experiment) { e.Code = "b" }, 6},
		"a default":   {func(e *Experiment) { each(e, func(c *Cell) { c.Scene.Fleet.Lag, c.Scene.Fleet.KV = defaultLag, 1 }) }, 0},
		"lag":         {func(e *Experiment) { each(e, func(c *Cell) { c.Scene.Fleet.Lag = -1 }) }, 6},
		"slow":        {func(e *Experiment) { each(e, func(c *Cell) { c.Scene.Fleet.Slow = map[int]float64{1: 2} }) }, 6},
		"scale":       {func(e *Experiment) { each(e, func(c *Cell) { c.Scene.Scale = 1.2 }) }, 6},
		"profile":     {func(e *Experiment) { each(e, func(c *Cell) { c.Scene.Fleet.Profile.KVTokens++ }) }, 6},
		"slo":         {func(e *Experiment) { each(e, func(c *Cell) { c.SLO = SLO{TTFT: 1, ITL: 1} }) }, 6},
		"arrivals":    {func(e *Experiment) { each(e, func(c *Cell) { c.Scene.Arrivals = "others" }) }, 6},
		"one seed":    {func(e *Experiment) { e.Cells[0].Seed = 4 }, 1},
		"a policy":    {func(e *Experiment) { e.Cells[1].Policy = "greedy" }, 1},
		"a workload":  {func(e *Experiment) { each(e, func(c *Cell) { c.Scene.Name = "W0" }) }, 6},
		"its own SLO": {func(e *Experiment) { each(e, func(c *Cell) { c.SLO = defaultSLO() }) }, 0},
	} {
		e := quick()
		e.Known = known
		c.change(&e)
		if got := len(e.Missing()); got != c.again {
			t.Errorf("%s changed: %d runs are run again, want %d", name, got, c.again)
		}
	}
	e.Known = known
	e.Ended = func(r Record) { t.Errorf("%s seed %d is run again", r.Policy, r.Seed) }
	if again, err := e.Run(t.Context()); err != nil || len(again) != 7 {
		t.Fatalf("%d records from those known, %v", len(again), err)
	}
}

func each(e *Experiment, change func(*Cell)) {
	for i := range e.Cells {
		change(&e.Cells[i])
	}
}

// A change of what a run depends on must change its key, whatever is added to Options one day.
func TestSetupsAreWritten(t *testing.T) {
	text, err := json.Marshal((&Scene{}).Setup(SLO{}))
	if err != nil {
		t.Fatal(err)
	}
	var back Setup
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, (&Scene{}).Setup(SLO{})) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestSummariesKeepSetupsApart(t *testing.T) {
	record := func(setup, policy string, seed uint64, value float64) Record {
		return Record{Workload: "W", Setup: setup, Policy: policy, Seed: seed, Metrics: Metrics{Goodput: value}}
	}
	all := Summarize([]Record{
		record("a", "warm", 1, .9), record("a", "random", 1, .5), record("b", "warm", 1, .2),
		record("a", "warm", 2, .8), record("a", "random", 2, .6), record("a", "random", 3, .7), record("b", "random", 1, .1),
	})
	found := 0
	for _, s := range all {
		if s.Metric != "goodput" || s.Policy != "random" {
			continue
		}
		found++
		mean, diff, seeds := .6, -.3, 3
		if s.Setup == "b" {
			mean, diff, seeds = .1, -.1, 1
		}
		if math.Abs(s.Mean-mean) > 1e-9 || math.Abs(s.Paired.Diff-diff) > 1e-9 || s.Seeds != seeds {
			t.Errorf("%+v %+v", s, s.Paired)
		}
	}
	if found != 2 {
		t.Errorf("%d summaries", found)
	}
}
