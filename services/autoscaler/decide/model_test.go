package decide

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*math.Abs(want)) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

// Values of the formula: C(1, a) = a; C(2, 1) = 1/3; the others from tables of the M/M/n queue.
func TestErlangCIsTheTables(t *testing.T) {
	for _, x := range []struct {
		n          int
		load, want float64
	}{{1, .5, .5}, {1, .95, .95}, {2, 1, 1. / 3}, {3, 2, 4. / 9}, {5, 4, .554113}, {10, 8, .409180}, {100, 90, .216940}} {
		near(t, "Erlang C", erlangC(x.n, x.load), x.want, 1e-5)
	}
}

// With equal prefills and Poisson arrivals the wait's tail is closed: C exp(-(B - s) 2 (n - a) / (E S)) for cs2 = 0.
func TestPrefillIsSizedByTheWait(t *testing.T) {
	var s sizes
	for range 512 {
		s.put(8000)
	}
	l := line{.015, 1. / 16}
	w := waitsFor(&s, l, 0, 1.5, .03, 1)
	near(t, "mean", w.mean, .515, 1e-9)
	near(t, "stretch", w.stretch, 1, 1e-9)
	budget := 1.5 - .012 - .03 - .515
	for n := 4; n < 8; n++ {
		want := erlangC(n, 3.5) * math.Exp(-budget*2*(float64(n)-3.5)/.515)
		near(t, "late", w.late(n, 3.5, erlangC(n, 3.5)), want, 1e-9)
	}
	least := w.least(3.5, .1)
	if late := w.violations(least, 3.5); late > .1 {
		t.Errorf("%d replicas leave %v late", least, late)
	}
	if least > 4 && w.violations(least-1, 3.5) <= .1 {
		t.Errorf("%d replicas are one too many", least)
	}
	for n := 1; n < 20; n++ {
		if a, b := w.violations(n, 8), w.violations(n+1, 8); b > a+1e-12 || a > 1 || b < 0 {
			t.Errorf("%d replicas leave %v late, one more %v", n, a, b)
		}
	}
}

// Prompts that no number of replicas serves in time are said, and chased with no replica beyond their work.
func TestInfeasiblePromptsAreNotChased(t *testing.T) {
	var few, many sizes
	for i := range 512 {
		few.put(2000)
		if i%8 == 0 {
			many.put(40_000)
		} else {
			many.put(2000)
		}
	}
	l := line{.015, 1. / 16}
	w := waitsFor(&many, l, 0, 1.5, .03, 1)
	if w.infeasible == 0 || w.infeasible == 1 {
		t.Fatalf("infeasible %v", w.infeasible)
	}
	all := waitsFor(&few, line{2, 1. / 16}, 0, 1.5, .03, 1)
	if all.infeasible != 1 || all.least(7, .1) != 11 {
		t.Fatalf("nothing can be served in time: %d replicas for 7 busy, want 11 (.7 busy)", all.least(7, .1))
	}
	if late := all.violations(100, 7); late != 1 {
		t.Fatalf("violations %v", late)
	}
}

// The truth is off the prior by 20 % and samples by 5 %; one in a hundred is nonsense.
func TestPrefillModelIsLearned(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := Model{}.complete(.03)
		truth := line{.015 * 1.2, 1. / 16 * .8}
		var p prefills
		for i := range 2000 {
			u := 100 + int(math.Exp(9.5*r.Float64()))
			s := truth.seconds(float64(u)/1000) * (1 + .05*r.NormFloat64())
			if i%100 == 7 {
				s *= 20
			}
			p.learn(u, time.Duration(s*1e9), p.fit(&m), &m)
		}
		got := p.fit(&m)
		near(t, "1/V", got.kilo, truth.kilo, .03)
		near(t, "p0", got.overhead, truth.overhead, .1)
		if c := p.confidence(); c < .8 {
			t.Errorf("confidence %v", c)
		}
	}
}

// A rate that changes for good is unlearned although each prefill is far off at first.
func TestAWrongPrefillModelIsUnlearned(t *testing.T) {
	m := Model{}.complete(.03)
	var p prefills
	learn := func(factor float64) {
		for i := range 3000 {
			u := 500 + i%7*1000
			p.learn(u, time.Duration((.015+float64(u)/16_000)*factor*1e9), p.fit(&m), &m)
		}
	}
	learn(1)
	learn(3)
	near(t, "1/V", p.fit(&m).kilo, 3./16, .06)
	learn(100)
	near(t, "1/V at its bound", p.fit(&m).kilo, 4./16, 1e-9)
}

func TestDecodeModelIsLearned(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := Model{}.complete(.03)
		truth := vector{14 * 1.1, .05 * 1.2, .056 * .8, m.Mixed}
		var s steps
		for i := range 3000 {
			n := 5 + 100*r.Float64()
			x := vector{1, n, n * (.5 + 4*r.Float64()), 0}
			ms := truth.dot(x) * (1 + .03*r.NormFloat64())
			if i%100 == 7 {
				ms *= 20
			}
			f := s.fit(&m)
			s.learn(x, ms, 5, &f)
			s.forget(.5)
		}
		f := s.fit(&m)
		for i, name := range []string{"a", "b", "c"} {
			near(t, name, f.mean[i], truth[i], [...]float64{.03, .1, .05}[i])
		}
		for _, n := range []float64{10, 40, 80} {
			x := vector{1, n, 2 * n, 0}
			near(t, "ITL", f.at(x), truth.dot(x), .02)
		}
		x := vector{1, 40, 80, 0}
		if f.confidence(x) < .8 || f.doubt(x) <= 0 {
			t.Errorf("confidence %v, doubt %v", f.confidence(x), f.doubt(x))
		}
	}
}

// What was learned is forgotten towards the prior, and prefill in the same engine has its own term.
func TestDecodeModelForgetsTowardsThePrior(t *testing.T) {
	m := Model{}.complete(.03)
	var s steps
	for i := range 2000 {
		n, u := float64(10+i%50), float64(i%7)
		f := s.fit(&m)
		s.learn(vector{1, n, 2 * n, u}, 10+.05*n+.112*n+1.2*u, 5, &f)
	}
	f := s.fit(&m)
	near(t, "a", f.mean[0], 10, .03)
	near(t, "d", f.mean[3], 1.2, .03)
	s.forget(1e6)
	f = s.fit(&m)
	near(t, "a forgotten", f.mean[0], m.Step, 1e-6)
	if c := f.confidence(vector{1, 40, 80, 0}); c > 1e-6 {
		t.Errorf("confidence %v", c)
	}
}

func TestStartupIsAQuantile(t *testing.T) {
	var s startups
	if got := s.seconds(100 * time.Second); got != 110 && math.Abs(got-110) > 1e-9 {
		t.Errorf("before any start: %v", got)
	}
	for i := range 4 {
		s.put(time.Duration(i+1) * time.Second)
	}
	near(t, "with four", s.seconds(100*time.Second), 110, 1e-9)
	for i := range 40 { // the last 20 are 21 to 40 s
		s.put(time.Duration(i+1) * time.Second)
	}
	near(t, "the .9 quantile", s.seconds(0), 21+.9*19, 1e-6)
	s.put(-time.Second)
	s.put(1000 * time.Hour)
	near(t, "with nonsense", s.seconds(0), 21+.9*19, 1e-6)
}

func TestPeaksAreHeld(t *testing.T) {
	var p peaks
	p.put(1000, 7)
	for s := 1005.; s < 1900; s += 5 {
		p.put(s, 1)
		if got := p.over(900); got != 7 {
			t.Fatalf("%v s after the peak: %v", s-1000, got)
		}
	}
	p.put(1000+900+2*slot, 1)
	if got := p.over(900); got != 1 {
		t.Fatalf("long after the peak: %v", got)
	}
	p.put(1e9, 2)
	if got := p.over(1e6); got != 2 {
		t.Fatalf("after a gap: %v", got)
	}
	if v, ok := p.ago(0); !ok || v != 2 {
		t.Fatalf("now: %v %v", v, ok)
	}
	if _, ok := p.ago(1e6); ok {
		t.Fatal("what is not kept is known")
	}
}

// A level follows a step within its memory, and its trend a ramp: h ticks ahead it is damped.
func TestLevelFollowsARamp(t *testing.T) {
	var l, plain level
	for i := range 400 {
		l, plain = l.next(float64(i), 1, true), plain.next(float64(i), 1, false)
	}
	near(t, "trend", l.Trend, .02/(1-.97+.02*.97), 1e-6) // its fixed point
	if l.ahead(24) <= l.Level+5 || plain.ahead(24) != plain.Level {
		t.Errorf("ahead %v of %v, plain %v of %v", l.ahead(24), l.Level, plain.ahead(24), plain.Level)
	}
	// Two ticks in one are about two ticks.
	a := level{Level: 10, Set: true}
	b := a.next(20, 2, false)
	a = a.next(20, 1, false).next(20, 1, false)
	near(t, "two ticks", b.Level, a.Level, 1e-9)
}

func TestBurstOfPoissonIsOne(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var steady, bursty burst
	sum, wild := 0., 0.
	for i := range 5000 {
		n, mean := 0., 50.
		if i%2 == 0 {
			mean = 20
		}
		for x := r.ExpFloat64(); x < 35; x += r.ExpFloat64() {
			n++
		}
		steady.put(n)
		bursty.put(n * mean / 35)
		sum, wild = sum+steady.ratio(), wild+bursty.ratio()
	}
	if mean := sum / 5000; mean < .95 || mean > 1.25 { // it is never below 1
		t.Errorf("Poisson arrivals vary %v times as much as by chance", mean)
	}
	if mean := wild / 5000; mean < 3 {
		t.Errorf("bursts vary %v times as much as by chance", mean)
	}
}
