package sim

import (
	"math"
	"testing"
	"time"
)

// The ledger's prediction of the time to the first byte, which the router reports, is near on loaded engines once their
// rates are learned, also where engines are slower than the profile.
func TestTTFTIsPredicted(t *testing.T) {
	for name, c := range map[string]struct {
		o     Options
		crowd Crowd
	}{
		"some load":      {Options{Pods: 4, Seed: 1}, Crowd{Greedy: 2, Others: []float64{1, 1}, Length: 2 * time.Minute}},
		"a slower fleet": {Options{Pods: 4, Seed: 1, Slow: map[int]float64{0: 1.5, 1: 1.5, 2: 1.5, 3: 1.5}}, Crowd{Greedy: 2, Others: []float64{.5, .5}, Length: 2 * time.Minute}},
	} {
		w := c.crowd.Workload(1)
		o, err := c.o.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		f, err := newWorld(o, &w)
		if err != nil {
			t.Fatal(err)
		}
		f.run(&w)
		var off []float64
		for _, a := range f.answers[len(f.answers)/4:] { // the first ones teach
			measured := (a.first - a.sent).Seconds()
			off = append(off, math.Abs(a.predicted.Seconds()-measured)/measured)
		}
		m := quantile(off, .5)
		t.Logf("%s: median error %.3f of %d", name, m, len(off))
		if m > .2 {
			t.Errorf("%s: the median error is %.3f", name, m)
		}
	}
}
