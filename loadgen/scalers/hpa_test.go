package scalers

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var begin = time.Unix(1_000_000, 0)

// at is a time of a test, in seconds.
func at(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }

func TestHPAFormula(t *testing.T) {
	for _, c := range []struct {
		name              string
		spec              int
		values            []float64
		missing, starting int
		target            float64
		want              int
		ok                bool
	}{
		{name: "mean over target", spec: 4, values: []float64{6, 6, 6, 6}, target: 3, want: 8, ok: true},
		{name: "up to the next whole", spec: 4, values: []float64{4, 4, 4, 4}, target: 3, want: 6, ok: true},
		{name: "a tenth is tolerated", spec: 4, values: []float64{3.3, 3.3, 3.3, 3.3}, target: 3, want: 4, ok: true},
		{name: "more than a tenth is not", spec: 4, values: []float64{3.4, 3.4, 3.4, 3.4}, target: 3, want: 5, ok: true},
		{name: "down", spec: 4, values: []float64{1, 1, 1, 1}, target: 3, want: 2, ok: true},
		{name: "missing counts 100 % on the way down", spec: 4, values: []float64{0, 0, 0}, missing: 1, target: 3, want: 1, ok: true},
		{name: "three missing of four", spec: 4, values: []float64{0}, missing: 3, target: 3, want: 3, ok: true},
		{name: "missing counts 0 on the way up", spec: 4, values: []float64{9, 9}, missing: 2, target: 3, want: 6, ok: true},
		{name: "starting counts 0 on the way up", spec: 4, values: []float64{9, 9}, starting: 2, target: 3, want: 6, ok: true},
		{name: "starting is left out on the way down", spec: 4, values: []float64{1, 1}, starting: 2, target: 3, want: 1, ok: true},
		{name: "a turn of direction changes nothing", spec: 4, values: []float64{4, 4}, starting: 2, target: 3, want: 4, ok: true},
		{name: "no metric, no change", spec: 4, missing: 4, target: 3, want: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hpa{spec: c.spec}
			if n, ok := h.perPod(c.values, c.missing, c.starting, c.target); n != c.want || ok != c.ok {
				t.Errorf("perPod = %d, %v, want %d, %v", n, ok, c.want, c.ok)
			}
		})
	}
}

func TestHPAAverageValue(t *testing.T) {
	for _, c := range []struct {
		spec        int
		sum, target float64
		want        int
	}{{4, 12, 1.5, 8}, {4, 6.5, 1.5, 4}, {4, 6.7, 1.5, 5}, {4, 3, 1.5, 2}, {4, 0, 1.5, 0}} {
		h := hpa{spec: c.spec}
		if n := h.average(c.sum, c.target); n != c.want {
			t.Errorf("average(%v, %v) of %d = %d, want %d", c.sum, c.target, c.spec, n, c.want)
		}
	}
}

// Kubernetes doubles, or adds four where that is more, in each 15 s.
func TestHPARatesUp(t *testing.T) {
	h := newHPA(&view{role: decide.Prefill, current: 1}, standard(), decide.Policy{})
	for i, want := range []int{5, 10, 20, 40, 50} {
		if n := h.sync(50, at(15*i)); n != want {
			t.Fatalf("sync %d = %d, want %d", i, n, want)
		}
	}
	within := newHPA(&view{role: decide.Prefill, current: 3}, standard(), decide.Policy{})
	within.sync(50, at(0))
	if n := within.sync(50, at(5)); n != 7 {
		t.Errorf("5 s after 3 became 7, it is %d: the rate is that of the period", n)
	}
}

// It falls to the most of what was recommended in 300 s: a dip does nothing.
func TestHPAFallsToTheMostOfItsWindow(t *testing.T) {
	h := newHPA(&view{role: decide.Prefill, current: 10}, standard(), decide.Policy{})
	h.sync(10, at(0))
	for second := 15; second <= 900; second += 15 {
		recommended := 2
		if second == 150 {
			recommended = 7
		}
		want := 10
		if second >= 300 {
			want = 7
		}
		if second >= 450 {
			want = 2
		}
		if n := h.sync(recommended, at(second)); n != want {
			t.Fatalf("after %d s it has %d, want %d", second, n, want)
		}
	}
}
