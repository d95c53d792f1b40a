package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// What Dynamo's planner sets (section 1.4 and 2.3).
const (
	dynamoInterval = 180 * time.Second // of the throughput loop
	dynamoLoad     = 5 * time.Second   // of the load loop
	dynamoDown     = .8                // of an objective that fewer replicas must stay under
	dynamoStays    = time.Minute       // how long they must
	dynamoStep     = 8                 // replicas at once
)

// dynamo is NVIDIA Dynamo's SLA planner, hybrid: every 180 s the requests and lengths of the next interval are predicted
// and a floor is set by the engines' profile, at full use and without a margin for queues; every 5 s one replica more
// where all engines are estimated above the objective, or one less, down to the floor, where the others would stay under
// .8 of it. While the replicas are not as many as ordered the load loop holds.
type dynamo struct {
	policy   decide.Policy
	interval time.Duration
	spare    float64 // factor on the floor's load
	spec     int
	floor    int
	profile  *calibration
	next     time.Time // load loop

	planned         time.Time      // throughput loop
	before          decide.Routers // totals then
	rate, input     trend          // requests/s, prompt tokens
	output, reached trend          // tokens, share of the prompt that is computed
	fewer           window         // greatest estimate over the objective with one replica less
}

func newDynamo(v *view, tuned bool, p decide.Policy) *dynamo {
	d := &dynamo{policy: p, interval: dynamoInterval, spare: 1, spec: v.current, floor: 1, profile: newCalibration(p.Prior)}
	if tuned {
		d.interval, d.spare = time.Minute, 1.3
	}
	return d
}

func (d *dynamo) want(v *view, now time.Time) int {
	d.profile.learn(v)
	switch {
	case d.planned.IsZero():
		d.planned, d.before = now, *v.routers
	case now.Sub(d.planned) >= d.interval:
		d.plan(v, now)
	}
	wanted := max(d.floor, d.load(v, now))
	d.spec = bounded(d.policy, v.role, min(max(wanted, d.spec-dynamoStep), d.spec+dynamoStep))
	return d.spec
}

// plan sets the floor for the next interval. Without a request the lengths are unknown and the tick is skipped.
func (d *dynamo) plan(v *view, now time.Time) {
	r, interval := v.routers, now.Sub(d.planned).Seconds()
	requests, ended := r.Arrivals-d.before.Arrivals, r.Finished-d.before.Finished
	prompt, uncached, output := r.Prompt-d.before.Prompt, r.Uncached-d.before.Uncached, r.Output-d.before.Output
	d.planned, d.before = now, *r
	if requests <= 0 || ended <= 0 || prompt <= 0 {
		return
	}
	d.rate.add(requests / interval)
	d.input.add(prompt / requests)
	d.reached.add(uncached / prompt)
	d.output.add(output / ended)
	m, isl, osl := d.profile.model(), d.input.next(), max(1, d.output.next())
	d.floor = 1
	if v.role != decide.Decode {
		d.floor = d.prefills(m, d.spare*d.rate.next(), isl*d.reached.next())
	}
	if v.decodes() {
		n := ceil(d.spare * d.rate.next() / d.decodeRate(m, isl+osl/2, osl))
		if v.role == decide.Both {
			n += d.floor
		}
		d.floor = n
	}
}

// prefills is ceil(rate x wt(isl)), an engine's rate being 1/wt, and at least sla_floor, ceil(ttft/sla).
func (d *dynamo) prefills(m decide.Model, rate, isl float64) int {
	wt := seconds(m, isl)
	return max(1, ceil(rate*wt), ceil(wt/d.policy.TTFT.Seconds()))
}

// decodeRate is the requests/s of a decode engine at the largest batch that meets the objective, within its cache and
// the limit of sequences: batch/(osl x wt).
func (d *dynamo) decodeRate(m decide.Model, context, osl float64) float64 {
	itl := d.policy.ITL.Seconds()
	batch := (itl*1000 - m.Step) / (m.Sequence + m.Kilo*context/1000)
	batch = max(1, min(batch, float64(m.KVTokens)/context, float64(m.MaxSeqs)))
	return batch / (osl * gap(m, batch, batch*context))
}

// load is the load loop's wish.
func (d *dynamo) load(v *view, now time.Time) int {
	if now.Before(d.next) || len(v.engines) == 0 {
		return d.spec
	}
	d.next = now.Add(dynamoLoad)
	least, fewer := d.estimates(v)
	d.fewer.add(now, fewer, dynamoStays)
	switch {
	case len(v.engines) != d.spec: // worker_count_mismatch
		d.fewer = window{}
		return d.spec
	case least > 1:
		return d.spec + 1
	case len(v.engines) > 1 && len(d.fewer.samples) > int(dynamoStays/dynamoLoad) && d.fewer.highest(now.Add(-dynamoStays)) < dynamoDown:
		d.fewer = window{}
		return d.spec - 1
	}
	return d.spec
}

// estimates are the least of the engines' latencies over the objective, and the mean one with one engine less.
func (d *dynamo) estimates(v *view) (least, fewer float64) {
	m, n := d.profile.model(), float64(len(v.engines))
	spread := n / max(1, n-1)
	waiting, held := float64(v.routers.Tokens)/n, float64(v.routers.Queued)/n // at the router: a share of it is each one's
	one := d.input.last * d.reached.last
	least = 1e9
	backlog, sequences, context := 0., 0., 0.
	for _, e := range v.engines {
		worst := 0.
		if v.role != decide.Decode {
			worst = seconds(m, float64(e.Backlog)+waiting+one) / d.policy.TTFT.Seconds()
		}
		if v.decodes() {
			worst = max(worst, gap(m, float64(e.Decoding)+held, float64(e.Context)+waiting)/d.policy.ITL.Seconds())
		}
		least = min(least, worst)
		backlog += (float64(e.Backlog) + waiting) / n
		sequences += (float64(e.Decoding) + held) / n
		context += (float64(e.Context) + waiting) / n
	}
	if v.role != decide.Decode {
		fewer = seconds(m, backlog*spread+one) / d.policy.TTFT.Seconds()
	}
	if v.decodes() {
		fewer = max(fewer, gap(m, sequences*spread, context*spread)/d.policy.ITL.Seconds())
	}
	return least, fewer
}
