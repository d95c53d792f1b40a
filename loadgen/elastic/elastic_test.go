package elastic

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// little is a shape at a small part of its rate, cut short.
func little(t *testing.T, name string, until time.Duration) Work {
	t.Helper()
	w, err := Shape(name, .1)
	if err != nil {
		t.Fatal(err)
	}
	w.Until = until
	return w
}

func ran(t *testing.T, c Cell) *Result {
	t.Helper()
	r, err := c.Run(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Equal cells give equal results to the bit, whatever ran before; other policies have the same requests.
func TestRunsAreReproducible(t *testing.T) {
	c := Cell{Work: little(t, "mixshift", 8*time.Minute), Policy: Ours, Variant: Default, Service: SLO, Startup: 30 * time.Second, Seed: 2, SLO: DefaultSLO()}
	a := ran(t, c)
	c.Policy = "static-peak"
	other := ran(t, c)
	c.Policy = Ours
	if b := ran(t, c); !reflect.DeepEqual(a, b) {
		t.Errorf("two runs differ: %+v, %+v", a.Metrics, b.Metrics)
	}
	if a.Metrics.Requests != other.Metrics.Requests || a.Metrics.Requests < 100 || a.Metrics.Infeasible != other.Metrics.Infeasible {
		t.Errorf("%d requests under ours, %d under another", a.Metrics.Requests, other.Metrics.Requests)
	}
	c.Seed = 3
	if b := ran(t, c); reflect.DeepEqual(a.Metrics, b.Metrics) {
		t.Error("another seed changes nothing")
	}
}

// The engines of a seed lie off the reference by what is said, and no two seeds' are the same.
func TestTheTruthIsOffThePrior(t *testing.T) {
	seen := map[Truth]bool{}
	far := 0.
	for seed := range uint64(200) {
		m, prior := TruthOf(seed).Model(), decide.Model{Overhead: .015, Rate: 16_000, Step: 14, Sequence: .05, Kilo: .056}
		for i, x := range [][3]float64{{m.Overhead, prior.Overhead, .2}, {m.Rate, prior.Rate, .2}, {m.Sequence, prior.Sequence, .2},
			{m.Kilo, prior.Kilo, .2}, {m.Step, prior.Step, .1}} {
			off := math.Abs(x[0]/x[1] - 1)
			if off > x[2]+1e-9 {
				t.Errorf("seed %d, constant %d: %v off", seed, i, off)
			}
			far = max(far, off/x[2])
		}
		seen[TruthOf(seed)] = true
	}
	if len(seen) != 200 || far < .9 {
		t.Errorf("%d different truths, at most %v of what is allowed", len(seen), far)
	}
}

// A fleet that stands still costs its replicas' time, and every request is good, lost or late.
func TestCostsAndSharesAreExact(t *testing.T) {
	c := Cell{Work: little(t, "ramp", 10*time.Minute), Policy: "static-peak", Variant: Default, Service: FCFS, Startup: time.Minute, Seed: 1, SLO: DefaultSLO()}
	r := ran(t, c)
	m := r.Metrics
	if want := 600. * gpus * float64(m.Max["prefill"]+m.Max["decode"]); m.GPU != want || m.GPUStarting != 0 {
		t.Errorf("%v GPU seconds, %v starting; want %v", m.GPU, m.GPUStarting, want)
	}
	n, good := 0, 0
	for _, s := range r.Samples {
		n, good = n+s.Requests, good+s.Good
	}
	if n != m.Requests || math.Abs(float64(good)/float64(n)-m.Joint) > 1e-12 || m.Joint < .99 {
		t.Errorf("%d requests, %d good over time; %+v", n, good, m)
	}
}

// The shares are of all that came: what is never answered counts, and so does the worst while.
func TestTheMeterCountsWhatIsNotAnswered(t *testing.T) {
	w := Work{Until: 10 * time.Minute, Requests: func(uint64) func() (Request, bool) {
		n := -1
		return func() (Request, bool) {
			n++
			return Request{At: time.Duration(n) * 6 * time.Second, Prompt: 100 + 100_000*(n%10/9), Output: 10}, n < 100
		}
	}}
	m := newMeter(&Cell{Work: w, SLO: DefaultSLO()})
	next := m.arrivals(TruthOf(1))
	for a, ok := next(); ok; a, ok = next() {
		o := sim.Outcome{At: a.At, Fits: a.Fits, TTFT: time.Second, ITL: 10 * time.Millisecond}
		switch {
		case a.At < 5*time.Minute && a.Fits: // good
		case a.At < 6*time.Minute:
			o.TTFT = 2 * time.Second
		case a.At < 7*time.Minute:
			o.ITL = 31 * time.Millisecond
		case a.At < 8*time.Minute:
			o.Lost = true
		default:
			continue // never answered
		}
		m.answered(o)
	}
	got := m.result(&sim.Elapsed{Until: w.Until}).Metrics
	want := Metrics{Requests: 100, Joint: .45, Feasible: .5, Infeasible: .1, Worst: 0, Lost: 10, Unanswered: 20}
	if got.Requests != want.Requests || got.Joint != want.Joint || got.Feasible != want.Feasible || math.Abs(got.Infeasible-want.Infeasible) > 1e-12 ||
		got.Worst != want.Worst || got.Lost != want.Lost || got.Unanswered != want.Unanswered {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The cost of a share is read between the points around it, and is not guessed beyond them.
func TestFronts(t *testing.T) {
	points := []Point{{1.3, .995, 300}, {.8, .9, 100}, {1.1, .985, 200}}
	if gpu, below := cost(points, .99); gpu == nil || math.Abs(*gpu-250) > 1e-9 || below {
		t.Errorf("%v, %v", gpu, below)
	}
	if gpu, below := cost(points, .999); gpu != nil || below {
		t.Errorf("%v for what none reaches", *gpu)
	}
	if gpu, below := cost(points, .85); gpu == nil || *gpu != 100 || !below {
		t.Errorf("%v, %v: the cheapest point has it already", gpu, below)
	}
}

// Differences are of equal seeds, and ours at another headroom is compared with ours too.
func TestSummariesArePaired(t *testing.T) {
	var all []Record
	for seed := range uint64(5) {
		x := float64(seed)
		for _, r := range []Record{{Policy: Ours, Metrics: Metrics{GPU: 100 + 50*x}}, {Policy: Ours, Headroom: 1.3, Metrics: Metrics{GPU: 130 + 50*x}},
			{Policy: "wva-v2", Metrics: Metrics{GPU: 120 + 50*x}}} {
			r.Seed = seed + 1
			all = append(all, r)
		}
	}
	for _, s := range Summarize(all) {
		if s.Metric != "gpu_s" {
			continue
		}
		want := map[string]float64{"wva-v2": 20, Ours: 30}[s.Policy]
		if s.Seeds != 5 || s.Headroom == 0 && s.Policy == Ours && s.Paired != nil {
			t.Errorf("%+v", s)
		}
		if p := s.Paired; p != nil && (p.Diff != want || p.CI95 != sim.Interval{want, want}) {
			t.Errorf("%s: %+v, want %v", s.Policy, p, want)
		}
	}
}

// A replay has its copies in order, at its rate, with its prefixes and no others'.
func TestReplays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	lines := `{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [0, 1]}
{"timestamp": 60000, "input_length": 1500, "output_length": 5, "hash_ids": [0, 1, 2]}
{"timestamp": 90000, "input_length": 600, "output_length": 5, "hash_ids": [0, 9]}
`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Find("mooncake", Source{Trace: path, Rate: 2.5})
	if err != nil {
		t.Fatal(err)
	}
	n, last, cached := 0, time.Duration(0), map[int]int{}
	for seed := range uint64(100) {
		w.of(seed, func(r *Request) {
			n++
			if r.At < last && r.At > 20*time.Second {
				t.Errorf("%v comes after %v", r.At, last)
			}
			last = r.At
			cached[r.Cached]++
			if r.Blocks.Len() != r.Prompt || r.Blocks[0].ID != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	if !w.Shared || n < 720 || n > 780 {
		t.Errorf("%d requests of 100 seeds, want about 750", n)
	}
	// The first of all has nothing cached, its copies block 0; those of minute 1 both blocks of their own copy.
	if cached[0] != 100 || cached[1024] < 200 || cached[512] < 250 || len(cached) != 3 {
		t.Errorf("cached tokens: %v", cached)
	}
}

func TestFormats(t *testing.T) {
	for text, want := range map[string]string{
		"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n": "azure",
		"  {\"timestamp\": 0}":                       "mooncake",
		"client,t_s,rate_rps,iat_cv,dist,p1,p2\na,0": "servegen",
		"minute,tokens_per_s\n":                      "",
		"":                                           "",
	} {
		path := filepath.Join(t.TempDir(), "trace")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := formatOf(path); got != want || (want == "") != errors.Is(err, ErrFormat) {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
}

// ServeGen's clients come at their rates and with their lengths, in order.
func TestDays(t *testing.T) {
	dir := t.TempDir()
	rates, sizes := filepath.Join(dir, "a_rates.csv"), filepath.Join(dir, "a_lengths_sample.jsonl")
	text := "client,t_s,rate_rps,iat_cv,dist,p1,p2\nbusy,0,20,1,Gamma,1,.05\nlate,600,10,2,Weibull,.6,1\nbusy,600,5,1,Gamma,.5,.05\n"
	if err := errors.Join(os.WriteFile(rates, []byte(text), 0o600),
		os.WriteFile(sizes, []byte(`{"client": "busy", "t_s": 0, "input_tokens": "{10: 0.5, 30: 0.5}", "output_tokens": "{7: 1.0}"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	w, err := Find("servegen", Source{Trace: rates, From: 0, To: 20 * time.Minute, Rate: 1})
	if err != nil {
		t.Fatal(err)
	}
	var n [2]float64
	last, in := time.Duration(0), map[int]int{}
	w.each(func(r *Request) {
		if r.At < last {
			t.Errorf("%v comes after %v", r.At, last)
		}
		last = r.At
		n[r.At/(10*time.Minute)]++
		in[r.Prompt]++
		if r.Output != 7*dayLength {
			t.Errorf("%+v", r)
		}
	})
	if math.Abs(n[0]-12000) > 500 || math.Abs(n[1]-9000) > 700 || len(in) != 2 || math.Abs(float64(in[90])/float64(in[30])-1) > .1 {
		t.Errorf("%v requests, lengths %v", n, in)
	}
	for _, bad := range []string{"", "client,t_s,rate_rps,iat_cv,dist,p1,p2\na,0,NaN,1,Gamma,1,1\n", "client,t_s,rate_rps,iat_cv,dist,p1,p2\na,0,1e8,1,Gamma,1,1\n"} {
		var d days
		if err := d.readRates(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	for _, bad := range []string{"{}", "{1: -1}", "{x: 1}", "{1: 0}", "{1}", "{99999999: 1}"} {
		if d, err := parseDistribution(bad); err == nil {
			t.Errorf("%q is %v", bad, d)
		}
	}
}

func TestGammaHasItsMoments(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, shape := range []float64{.06, .5, 1, 4} {
		sum, square, n := 0., 0., 400_000
		for range n {
			x := gamma(rng, shape)
			sum, square = sum+x, square+x*x
		}
		mean := sum / float64(n)
		if v := square/float64(n) - mean*mean; math.Abs(mean/shape-1) > .03 || math.Abs(v/shape-1) > .06 {
			t.Errorf("shape %v: mean %v, variance %v", shape, mean, v)
		}
	}
}

// Where a trace is not at hand a stand-in is made, which says so.
func TestStandIns(t *testing.T) {
	for _, name := range []string{"azure", "mooncake", "servegen"} {
		w, err := Find(name, Source{Dir: string(filepath.Separator), From: 0, To: 10 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if w.Count() < 100 || w.What[:9] != "generated" {
			t.Errorf("%s: %s, %v requests", name, w.What, w.Count())
		}
	}
}

func TestRatiosAreToOfflineOfTheSameSeed(t *testing.T) {
	all := []Record{{Policy: Ours, Seed: 1, Metrics: Metrics{GPU: 30}}, {Policy: Ours, Seed: 2, Metrics: Metrics{GPU: 30}},
		{Policy: offline, Seed: 1, Metrics: Metrics{GPU: 20}}, {Policy: Ours, Seed: 1, Service: FCFS, Metrics: Metrics{GPU: 30}}}
	AgainstOffline(all)
	if got := all[0].Metrics.ToOffline; got == nil || *got != 1.5 || all[1].Metrics.ToOffline != nil || all[3].Metrics.ToOffline != nil {
		t.Errorf("%v, %v, %v", got, all[1].Metrics.ToOffline, all[3].Metrics.ToOffline)
	}
}
