package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// waiting is the recipe of the field: an HPA on vllm:num_requests_waiting (section 1.6: targets 1 to 5 are seen; section
// 7.9 measures 3). A decode engine hardly ever has requests waiting before its objective is long missed, so there the
// HPA has KV usage for a second metric, at the .8 of llm-d's decode recipe (section 1.2); of two metrics the greater
// proposal holds, and the lack of either blocks the way down. Requests in the router's queue count as the engines' own.
type waiting struct {
	hpa   hpa
	queue float64 // waiting requests for each pod
	usage float64 // of the KV cache
}

func newWaiting(v *view, tuned bool, p decide.Policy) *waiting {
	w := &waiting{hpa: newHPA(v, standard(), p), queue: 3, usage: .8}
	if tuned {
		w.hpa.behaviour, w.queue, w.usage = calm(), 1, .35
	}
	return w
}

func (w *waiting) want(v *view, now time.Time) int {
	if !w.hpa.due(now) {
		return w.hpa.spec
	}
	var queues, usages []float64
	for _, e := range v.engines {
		if e.Scrape.At.IsZero() {
			continue
		}
		queues = append(queues, e.Scrape.Waiting+float64(v.routers.Queued)/float64(len(v.engines)))
		usages = append(usages, e.Scrape.KVUsage)
	}
	missing, starting := len(v.engines)-len(queues), max(0, w.hpa.spec-len(v.engines))
	n, ok := w.hpa.perPod(queues, missing, starting, w.queue)
	if v.decodes() {
		other, all := w.hpa.perPod(usages, missing, starting, w.usage)
		n, ok = max(n, other), ok && all
	}
	if !ok {
		n = max(n, w.hpa.spec)
	}
	return w.hpa.sync(n, now)
}
