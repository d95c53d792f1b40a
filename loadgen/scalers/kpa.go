package scalers

import (
	"time"
)

// What Knative sets (section 2.5 and 1.6; knative-serving config-autoscaler).
const (
	kpaStable    = 60 * time.Second // stable-window
	kpaPanic     = .1               // of it: panic-window-percentage
	kpaThreshold = 2                // panic-threshold-percentage, of what ready pods bear
	kpaUp        = 1000             // max-scale-up-rate
	kpaDown      = 2                // max-scale-down-rate
	kpaTarget    = 70               // container-concurrency-target-default 100 at a utilisation of 70 %
)

// kpa is Knative's autoscaler: requests that are in a role's pods, and those that wait for one, over a target for each
// pod. It counts requests and is blind to tokens; the published target is the platform's, so tuned has one of its own.
type kpa struct {
	target   float64
	window   time.Duration // stable
	sampled  window
	panicked time.Time // zero is calm
	highest  int       // of this panic
	spec     int
}

func newKPA(v *view, tuned bool) *kpa {
	k := &kpa{target: kpaTarget, window: kpaStable, spec: v.current}
	if tuned {
		k.target, k.window = 1, 10*time.Minute
		if v.decodes() {
			k.target = 50
		}
	}
	return k
}

func (k *kpa) want(v *view, now time.Time) int {
	total := float64(v.routers.Queued)
	for _, e := range v.engines {
		total += float64(e.Inflight)
	}
	k.sampled.add(now, total, k.window)
	k.spec = k.next(max(1, len(v.engines)), now)
	return k.spec
}

// next is what Knative's autoscaler wants of so many ready pods.
func (k *kpa) next(ready int, now time.Time) int {
	least, most := ready/kpaDown, ready*kpaUp
	stable := min(max(ceil(k.sampled.mean(now.Add(-k.window))/k.target), least), most)
	burst := ceil(k.sampled.mean(now.Add(-time.Duration(kpaPanic*float64(k.window)))) / k.target)
	over := burst >= kpaThreshold*ready
	burst = min(max(burst, least), most)
	switch {
	case over && k.panicked.IsZero():
		k.panicked, k.highest = now, 0
	case over:
		k.panicked = now
	case !k.panicked.IsZero() && now.Sub(k.panicked) > k.window:
		k.panicked = time.Time{}
	}
	if k.panicked.IsZero() {
		return max(1, stable)
	}
	if n := max(stable, burst); n > k.highest { // in panic it only rises
		k.panicked, k.highest = now, n
	}
	return max(1, k.highest)
}
