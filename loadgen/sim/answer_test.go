package sim

import (
	"math"
	"testing"
	"time"
)

// Those who ask hear of each request once, and what they hear adds up to the metrics.
func TestEachAnswerIsTold(t *testing.T) {
	w := small(3)
	w.Stages = w.Stages[1:] // metrics leave the warm-up out
	w.Stages[0].Sessions = append(w.Stages[0].Sessions, one(0, Prompt{{1, 10_000}}, 3))
	o := tight("warm")
	o.FrontEnd = 9 * time.Millisecond
	told := map[int]Answer{}
	o.Answered = func(a Answer) { told[a.Request] = a }
	r, f := run(t, o, w)
	if len(told) != w.Requests() || len(f.answers) != w.Requests() {
		t.Fatalf("told of %d of %d requests", len(told), w.Requests())
	}
	var ttft, tpot, hit, prompt float64
	per := make([]int, o.Pods)
	refused := 0
	for n := range w.Requests() {
		a, ok := told[n]
		if !ok {
			t.Fatalf("not told of request %d", n)
		}
		if a.Refused {
			if refused++; a.TTFT != 0 || a.TPOT != 0 || a.Prompt != 10_000 {
				t.Errorf("refused: %+v", a)
			}
			continue
		}
		per[a.Engine]++
		ttft, tpot = ttft+a.TTFT.Seconds(), tpot+a.TPOT.Seconds()
		hit, prompt = hit+float64(a.Hit), prompt+float64(a.Prompt)
	}
	m, n := r.Metrics, float64(r.Metrics.Completed)
	if refused != 1 || m.Shed != 1 || math.Abs(ttft/n-m.TTFTMean) > 1e-9 || math.Abs(tpot/n-m.TPOTMean) > 1e-6 || hit/prompt != m.HitRatio {
		t.Errorf("%d refused, TTFT %v, TPOT %v, hit ratio %v; metrics %+v", refused, ttft/n, tpot/n, hit/prompt, m)
	}
	for i, e := range r.PerEngine {
		if e.Requests != per[i] {
			t.Errorf("engine %d: told of %d of %d requests", i, per[i], e.Requests)
		}
	}
}
