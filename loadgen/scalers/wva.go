package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// What llm-d's Workload Variant Autoscaler sets (section 1.1 and 2.1, V2).
const (
	wvaLoop   = 30 * time.Second
	wvaPeak   = time.Minute // KV usage and queue are the most of this
	wvaMeans  = 5 * time.Minute
	wvaK1     = .80 // of the KV cache may be full
	wvaBusy   = 5   // waiting requests: what is resident then is what the engine can do
	wvaUp     = .85
	wvaDown   = .70
	wvaRolled = 10   // observations of k2 that are averaged
	wvaBatch  = 8192 // tokens of a batch: vLLM's max_num_batched_tokens
)

// wva is WVA's saturation analyzer V2: the tokens that are resident or wait, over what a replica can hold while it is
// not saturated; replicas that start count as supply on the way up. Its wish is a metric that an HPA follows. Costs of
// variants are left out: there is one.
type wva struct {
	hpa      hpa
	policy   decide.Policy
	up, down float64
	k1       float64

	next   time.Time
	wish   int
	ended  recent
	peaks  map[string]*peaks
	rolled map[int][]float64 // k2 by bucket of output length
}

// peaks are what an engine said of late.
type peaks struct{ resident, waiting window }

func newWVA(v *view, tuned bool, p decide.Policy) *wva {
	w := &wva{
		hpa:    newHPA(v, standard(), p),
		policy: p, up: wvaUp, down: wvaDown, k1: wvaK1, wish: v.current,
		peaks: make(map[string]*peaks), rolled: make(map[int][]float64),
	}
	if tuned {
		w.hpa.behaviour.down, w.k1 = calm().down, .4
	}
	return w
}

func (w *wva) want(v *view, now time.Time) int {
	w.ended.add(now, v.routers.Ended, wvaMeans)
	w.see(v, now)
	if !now.Before(w.next) {
		w.next = now.Add(wvaLoop)
		w.wish = w.wished(v, now)
	}
	if !w.hpa.due(now) {
		return w.hpa.spec
	}
	return w.hpa.sync(w.hpa.average(float64(w.wish), 1), now)
}

// see takes in what the engines say. One that says nothing is "using 0".
func (w *wva) see(v *view, now time.Time) {
	seen := make(map[string]*peaks, len(v.engines))
	for _, e := range v.engines {
		p := w.peaks[e.ID]
		if p == nil {
			p = new(peaks)
		}
		p.resident.add(now, e.Scrape.KVUsage*w.capacity(e), wvaPeak)
		p.waiting.add(now, e.Scrape.Waiting, wvaPeak)
		seen[e.ID] = p
	}
	w.peaks = seen
}

// capacity is how many tokens an engine's cache holds.
func (w *wva) capacity(e decide.Engine) float64 {
	if e.Scrape.KVTokens > 0 {
		return float64(e.Scrape.KVTokens)
	}
	return float64(w.policy.Prior.KVTokens)
}

// wished is the number of replicas that demand and supply come to.
func (w *wva) wished(v *view, now time.Time) int {
	if len(v.engines) == 0 {
		return w.hpa.spec
	}
	input := w.ended.mean(func(r *decide.Request) float64 { return float64(r.Prompt) })
	output := w.ended.mean(func(r *decide.Request) float64 { return float64(r.Output) })
	queued := input
	if v.decodes() {
		queued += output
	}
	demand, supply := float64(v.routers.Tokens), 0.
	for _, e := range v.engines {
		resident, waiting := w.peaks[e.ID].resident.highest(now.Add(-wvaPeak)), w.peaks[e.ID].waiting.highest(now.Add(-wvaPeak))
		demand += resident + waiting*queued
		supply += min(w.k1*w.capacity(e), w.k2(resident, waiting, input, output))
	}
	each := max(1, supply/float64(len(v.engines)))
	pending := float64(max(0, w.hpa.spec-len(v.engines)))
	if required := demand/w.up - supply - pending*each; required > 0 {
		return w.hpa.spec + ceil(required/each)
	}
	if spare := supply - demand/w.down; spare > 0 {
		return max(1, w.hpa.spec-int(spare/each))
	}
	return w.hpa.spec
}

// k2 is how many tokens an engine computes on at once: what is resident while requests wait, else what that was of late
// for outputs of this length, else what the batch allows.
func (w *wva) k2(resident, waiting, input, output float64) float64 {
	bucket := 0
	switch {
	case output >= 500:
		bucket = 2
	case output >= 100:
		bucket = 1
	}
	rolled := w.rolled[bucket]
	if waiting >= wvaBusy && resident > 0 {
		rolled = append(rolled, resident)
		w.rolled[bucket] = rolled[max(0, len(rolled)-wvaRolled):]
		return resident
	}
	if len(rolled) > 0 {
		sum := 0.
		for _, k := range rolled {
			sum += k
		}
		return sum / float64(len(rolled))
	}
	if input+output == 0 {
		return float64(w.policy.Prior.KVTokens)
	}
	return max(1, min(wvaBatch*output/(input+output), float64(w.policy.Prior.MaxSeqs))*(input+output/2))
}
