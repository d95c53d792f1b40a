package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const (
	ratioWindow  = time.Minute     // over which tokens/s are taken
	ratioLengths = 300             // requests that the pressure test sees at least
	ratioTest    = 3 * time.Minute // for at least so long: short answers end first
)

// ratio is what HeteroScale does (section 0.7): decode tokens/s scale both roles, prefill in a fixed proportion to
// decode. The proportion and what a decode replica bears come from a pressure test before production: the lengths of the
// first requests on the profile of the engines. It stays what it was found to be; until then nothing changes. A replica
// should have .6 of its greatest tokens/s: at .8 the scaler never leaves an overload in which engines preempt, as these
// then make fewer tokens than that.
type ratio struct {
	policy  decide.Policy
	bear    float64 // share of its greatest tokens/s that a decode replica should have
	margin  float64 // the same of prefill
	hpa     *hpa
	profile *calibration
	output  window
	tested  recent
	tokens  float64 // a decode replica's share of its tokens/s; 0 is not tested yet
	each    float64 // prefill replicas for each of decode
}

func newRatio(tuned bool, p decide.Policy) *ratio {
	r := &ratio{policy: p, bear: .6, margin: .7, profile: newCalibration(p.Prior)}
	if tuned {
		r.bear, r.margin = .5, .6
	}
	return r
}

func (r *ratio) Decide(o decide.Observation, now time.Time) map[decide.Role]int {
	lead := decide.Decode
	if _, both := o.Replicas[decide.Both]; both {
		lead = decide.Both
	}
	v := newView(&o, lead)
	if r.hpa == nil {
		h := newHPA(v, standard(), r.policy)
		r.hpa = &h
	}
	r.profile.learn(v)
	r.output.add(now, o.Routers.Output, ratioWindow)
	r.test(&o, now)
	wanted := make(map[decide.Role]int, len(o.Replicas))
	if r.tokens == 0 {
		for role := range o.Replicas {
			wanted[role] = bounded(r.policy, role, newView(&o, role).current)
		}
		return wanted
	}
	if grown, seconds := r.output.growth(); r.hpa.due(now) && seconds > 0 {
		r.hpa.sync(r.hpa.average(grown/seconds, r.tokens), now)
	}
	for role := range o.Replicas {
		n := r.hpa.spec
		if role == decide.Prefill {
			n = ceil(r.each * float64(n))
		}
		wanted[role] = bounded(r.policy, role, n)
	}
	return wanted
}

// test finds the proportion, once, when enough requests have ended.
func (r *ratio) test(o *decide.Observation, now time.Time) {
	if r.tokens > 0 {
		return
	}
	r.tested.add(now, o.Routers.Ended, time.Hour)
	if len(r.tested.requests) < ratioLengths || now.Sub(r.tested.at[0]) < ratioTest {
		return
	}
	m, itl := r.profile.model(), r.policy.ITL.Seconds()
	prefill := r.tested.mean(func(q *decide.Request) float64 { return seconds(m, float64(q.Uncached)) }) / r.margin
	output := r.tested.mean(func(q *decide.Request) float64 { return float64(q.Output) })
	bears := sequences(m, r.tested.mean(func(q *decide.Request) float64 { return float64(q.Prompt) + float64(q.Output)/2 }), itl)
	r.tokens = r.bear * bears / (.93 * itl)
	if _, both := o.Replicas[decide.Both]; both { // an engine for both bears so much less of decode
		r.tokens /= 1 + prefill*r.tokens/output
	}
	r.each = prefill * r.tokens / max(1, output)
	r.tested = recent{}
}
