package scalers

import (
	"math"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// rate is a limit of an HPA: it may change by that many pods, or that share of those at the period's start.
type rate struct {
	pods   int
	share  float64
	period time.Duration
}

// behaviour is how far and fast an HPA goes (section 2.5; autoscaling/v2 HPAScalingRules). Of several rates the one
// that allows most holds.
type behaviour struct {
	up, down   []rate
	upWindow   time.Duration // it rises to the least of what was recommended so long
	downWindow time.Duration // it falls to the most of what was recommended so long
}

// standard is Kubernetes' default: up by max(100 %, 4 pods) in 15 s, down by 100 % in 15 s, but to the most of 300 s.
func standard() behaviour {
	return behaviour{
		up:         []rate{{pods: 4, period: 15 * time.Second}, {share: 1, period: 15 * time.Second}},
		down:       []rate{{share: 1, period: 15 * time.Second}},
		downWindow: 300 * time.Second,
	}
}

// calm is that of the tuned variants: up by max(2 pods, 50 %) in a minute and down by one pod in a minute, to the most of
// 300 s. With Kubernetes' default those that follow a queue swing from one bound to the other. On ramp and azure (start-up
// 110 s, FCFS) hpa-waiting goes with it from 83 and 75 % good for 65 and 124 GPU-hours to 96 and 95 % for 38 and 31.
func calm() behaviour {
	return behaviour{
		up:         []rate{{pods: 2, period: time.Minute}, {share: .5, period: time.Minute}},
		down:       []rate{{pods: 1, period: time.Minute}},
		downWindow: 300 * time.Second,
	}
}

const (
	hpaSync      = 15 * time.Second // section 2.5: --horizontal-pod-autoscaler-sync-period
	hpaTolerance = .1               // section 2.5: --horizontal-pod-autoscaler-tolerance
)

// hpa is the horizontal pod autoscaler of Kubernetes.
type hpa struct {
	behaviour behaviour
	bound     func(int) int // minReplicas and maxReplicas
	spec      int           // what it ordered last: spec.replicas
	next      time.Time
	said      []change // recommendations
	made      []change // changes of spec
}

type change struct {
	at time.Time
	n  int
}

func newHPA(v *view, b behaviour, p decide.Policy) hpa {
	role := v.role
	return hpa{behaviour: b, bound: func(n int) int { return bounded(p, role, n) }, spec: bounded(p, role, v.current)}
}

// due says whether it is time for a sync.
func (h *hpa) due(now time.Time) bool {
	if now.Before(h.next) {
		return false
	}
	h.next = now.Add(hpaSync)
	return true
}

// sync makes a recommendation an order.
func (h *hpa) sync(recommended int, now time.Time) int {
	n := h.bound(h.limited(h.stable(h.bound(recommended), now), now))
	if n != h.spec {
		h.made = append(h.made, change{now, n - h.spec})
		h.spec = n
	}
	return n
}

// stable is the recommendation after both windows: stabilizeRecommendationWithBehaviors.
func (h *hpa) stable(recommended int, now time.Time) int {
	h.said = append(h.said, change{now, recommended})
	h.said = since(h.said, now.Add(-max(h.behaviour.upWindow, h.behaviour.downWindow)))
	least, most := recommended, recommended
	for _, c := range h.said {
		if c.at.After(now.Add(-h.behaviour.upWindow)) {
			least = min(least, c.n)
		}
		if c.at.After(now.Add(-h.behaviour.downWindow)) {
			most = max(most, c.n)
		}
	}
	return min(max(h.spec, least), most)
}

// limited is n within the rates: convertDesiredReplicasWithBehaviorRate.
func (h *hpa) limited(n int, now time.Time) int {
	h.made = since(h.made, now.Add(-30*time.Minute))
	switch {
	case n > h.spec && h.behaviour.up != nil:
		limit := h.spec
		for _, r := range h.behaviour.up {
			start := h.before(now.Add(-r.period))
			limit = max(limit, start+r.pods, int(math.Ceil(float64(start)*(1+r.share))))
		}
		return min(n, limit)
	case n < h.spec && h.behaviour.down != nil:
		limit := h.spec
		for _, r := range h.behaviour.down {
			start := h.before(now.Add(-r.period))
			limit = min(limit, start-r.pods, int(float64(start)*(1-r.share)))
		}
		return max(n, limit)
	}
	return n
}

// before is what was ordered at a time.
func (h *hpa) before(t time.Time) int {
	n := h.spec
	for _, c := range h.made {
		if c.at.After(t) {
			n -= c.n
		}
	}
	return n
}

func since(list []change, t time.Time) []change {
	for len(list) > 0 && !list[0].at.After(t) {
		list = list[1:]
	}
	return list
}

// perPod is what a metric of the pods asks for, ceil(n x metric/target) (section 2.5): values are those of ready pods
// that gave one. missing pods, ready without a value, count as 100 % of the target on the way down and as 0 on the way
// up; starting ones as 0 on the way up. Where these turn the direction nothing changes. ok is false without any value:
// then the HPA does nothing.
func (h *hpa) perPod(values []float64, missing, starting int, target float64) (n int, ok bool) {
	if len(values) == 0 {
		return h.spec, false
	}
	sum := 0.
	for _, v := range values {
		sum += v
	}
	ratio, counted := sum/float64(len(values))/target, len(values)
	if missing == 0 && (starting == 0 || ratio <= 1) {
		if tolerated(ratio) {
			return h.spec, true
		}
		return ceil(ratio * float64(counted)), true
	}
	if ratio < 1 {
		sum += float64(missing) * target
	}
	counted += missing
	if ratio > 1 {
		counted += starting
	}
	again := sum / float64(counted) / target
	n = ceil(again * float64(counted))
	if tolerated(again) || (ratio < 1) != (again < 1) || (again < 1 && n > h.spec) || (again > 1 && n < h.spec) {
		return h.spec, true
	}
	return n, true
}

// average is what a sum that all pods share asks for: an external metric of type AverageValue, as KEDA makes them.
func (h *hpa) average(sum, target float64) int {
	if h.spec > 0 && tolerated(sum/target/float64(h.spec)) {
		return h.spec
	}
	return ceil(sum / target)
}

func tolerated(ratio float64) bool { return ratio >= 1-hpaTolerance && ratio <= 1+hpaTolerance }

// ceil rounds up, but not for what arithmetic leaves over.
func ceil(x float64) int { return int(math.Ceil(x - 1e-9)) }
