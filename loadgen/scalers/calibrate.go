package scalers

import (
	"math"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// calibration is a profile of the engines as they are. Who needs one is published with a tool that measures it
// (calibrate.sh of llm-d token, section 2.2; the profiler and the regressions of Dynamo, section 2.3), so none has to do
// with a prior that is wrong: one factor of prefill and one of decode follow what requests and engines show.
type calibration struct {
	prior    decide.Model
	prefill  learned
	decode   learned
	counters map[string]gaps // of each engine, at the last look
}

type gaps struct{ seconds, tokens float64 }

// learned is a ratio of what was measured to what the prior says, of late.
type learned struct{ measured, expected float64 }

func (l *learned) add(measured, expected, keep float64) {
	if !(measured > 0) || !(expected > 0) || math.IsInf(measured+expected, 0) {
		return
	}
	l.measured, l.expected = l.measured*keep+measured, l.expected*keep+expected
}

// ratio is 1 until something was measured, and within a factor of 4.
func (l *learned) ratio(weight float64) float64 {
	return min(4, max(.25, (l.measured+weight)/(l.expected+weight)))
}

func newCalibration(prior decide.Model) *calibration {
	return &calibration{prior: prior, counters: make(map[string]gaps)}
}

// learn takes in what ended, and the gaps between the tokens of engines that decode.
func (c *calibration) learn(v *view) {
	for _, r := range v.routers.Ended {
		if !r.Failed {
			c.prefill.add(r.Prefill.Seconds(), seconds(c.prior, float64(r.Uncached)), .999)
		}
	}
	engines := v.engines
	if !v.decodes() {
		engines = v.others
	}
	seen := make(map[string]gaps, len(engines))
	for _, e := range engines {
		seen[e.ID] = gaps{e.Gaps, e.Tokens}
		before, known := c.counters[e.ID]
		if tokens := e.Tokens - before.tokens; known && tokens > 0 && e.Decoding > 0 {
			c.decode.add(e.Gaps-before.seconds, tokens*gap(c.prior, float64(e.Decoding), float64(e.Context)), .999)
		}
	}
	c.counters = seen
}

// model is the profile now. The prior weighs as much as 20 prefills of 1,000 tokens, and as 1,000 gaps.
func (c *calibration) model() decide.Model {
	m := c.prior
	slow := c.prefill.ratio(20 * seconds(m, 1000))
	m.Overhead, m.Rate = m.Overhead*slow, m.Rate/slow
	slow = c.decode.ratio(1000 * gap(m, 50, 50_000))
	m.Step, m.Sequence, m.Kilo = m.Step*slow, m.Sequence*slow, m.Kilo*slow
	return m
}
