package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// What llm-d's SLO-aware recipe sets (section 1.3 and 2.2).
const (
	sloUp      = .55
	sloDown    = .40
	sloMost    = 2.               // no objective counts as missed by more
	sloAverage = 45 * time.Second // of the metric
	sloLatency = time.Minute      // over which percentiles are taken
)

// slo is llm-d's SLO-aware recipe: P90 of TTFT and TPOT over their objectives, the greater of both, averaged; up above
// .55, with credit for pods that start, and down below .40. It serves engines for both roles; run once a role, prefill
// looks at TTFT and decode at TPOT. No traffic is zero.
type slo struct {
	hpa      hpa
	policy   decide.Policy
	up, down float64
	ended    recent
	score    window
}

func newSLO(v *view, tuned bool, p decide.Policy) *slo {
	b := behaviour{
		up:         []rate{{pods: 4, period: time.Minute}, {share: 1, period: time.Minute}},
		down:       []rate{{pods: 1, period: 120 * time.Second}},
		upWindow:   30 * time.Second,
		downWindow: 180 * time.Second,
	}
	s := &slo{hpa: newHPA(v, b, p), policy: p, up: sloUp, down: sloDown}
	if tuned {
		s.up, s.down = .7, .55
	}
	return s
}

func (s *slo) want(v *view, now time.Time) int {
	s.ended.add(now, v.routers.Ended, sloLatency)
	if !s.hpa.due(now) { // Prometheus scrapes as seldom
		return s.hpa.spec
	}
	worst := 0.
	if v.role != decide.Decode {
		worst = s.ended.p90(func(r *decide.Request) float64 { return r.TTFT.Seconds() }) / s.policy.TTFT.Seconds()
	}
	if v.decodes() {
		worst = max(worst, s.ended.p90(func(r *decide.Request) float64 { return r.ITL.Seconds() })/s.policy.ITL.Seconds())
	}
	s.score.add(now, min(worst, sloMost), sloAverage)
	wanted := s.wanted(s.score.mean(now.Add(-sloAverage)), len(v.engines))
	return s.hpa.sync(s.hpa.average(float64(wanted), 1), now)
}

// wanted is what a score asks for where so many of the pods are ready.
func (s *slo) wanted(score float64, ready int) int {
	n := float64(s.hpa.spec)
	credit := min(1, float64(ready)/max(1, n))
	switch {
	case score*credit > s.up:
		return s.hpa.spec + ceil(n*(score*credit/s.up-1))
	case score < s.down:
		return s.hpa.spec - int(n*(1-score/s.down))
	}
	return s.hpa.spec
}
