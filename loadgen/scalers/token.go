package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// token is llm-d's token-aware recipe (section 1.2 and 2.2): an HPA through KEDA on uncached prompt tokens in flight over
// what a pod prefills in 1.5 s, and on the sum of KV usage over .8. Where nobody says anything the sum is zero, as with
// its `or vector(0)`. Its bounds of 1 to 10 are its example's; here the policy's hold.
// Prompts in our router's queue count as work for prefill, and as cache that decode will need.
type token struct {
	hpa     hpa
	profile *calibration
	wait    float64 // seconds of work that a prefill pod may have
	usage   float64 // of the KV cache
}

func newToken(v *view, tuned bool, p decide.Policy) *token {
	slow := behaviour{
		up:         []rate{{pods: 1, period: 180 * time.Second}},
		down:       []rate{{pods: 1, period: 300 * time.Second}},
		downWindow: 300 * time.Second,
	}
	t := &token{
		hpa:     newHPA(v, slow, p),
		profile: newCalibration(p.Prior), wait: 1.5, usage: .8,
	}
	if tuned {
		t.hpa.behaviour, t.wait, t.usage = calm(), .3, .35
	}
	return t
}

func (t *token) want(v *view, now time.Time) int {
	t.profile.learn(v)
	if !t.hpa.due(now) {
		return t.hpa.spec
	}
	m := t.profile.model()
	n, backlog, usage := 0, float64(v.routers.Tokens), float64(v.routers.Tokens)/float64(m.KVTokens)
	for _, e := range v.engines {
		backlog += float64(e.Backlog)
		usage += e.Scrape.KVUsage
	}
	if v.role != decide.Decode {
		n = t.hpa.average(backlog/chunkRate(m), t.wait)
	}
	if v.decodes() {
		n = max(n, t.hpa.average(usage, t.usage))
	}
	return t.hpa.sync(n, now)
}

// chunkRate is V_P as calibrate.sh finds it: the tokens of one chunk over the TTFT of an idle engine.
func chunkRate(m decide.Model) float64 {
	const chunk = 8192 // tokens
	return chunk / seconds(m, chunk)
}
