package elastic

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/sim"
)

// Work is what comes.
type Work struct {
	Name   string
	What   string // in words
	Until  time.Duration
	Rate   float64 // factor on the recorded rate, or on the shape's
	Shared bool    // prompts share prefixes
	// Requests are those of a seed, in order of time: equal seeds, equal requests.
	Requests func(seed uint64) func() (Request, bool)
}

// Request is one that comes.
type Request struct {
	At     time.Duration
	Prompt int
	Cached int // of Prompt, what one endless cache would hold
	Output int
	Blocks sim.Prompt // where prompts share prefixes
}

// Names are the workloads.
func Names() []string {
	return []string{"ramp", "step", "sine", "mixshift", "azure", "mooncake", "servegen"}
}

// shape is a rate and lengths over time.
type shape struct {
	name, what string
	until      time.Duration
	rate       func(t time.Duration) float64 // requests/s
	peak       float64
	size       func(t time.Duration, rng *rand.Rand) (prompt, output int)
}

// work makes requests of a shape: Poisson arrivals at its rate, thinned from its peak.
func (s shape) work(scale float64) Work {
	return Work{Name: s.name, What: s.what, Until: s.until, Rate: scale, Requests: func(seed uint64) func() (Request, bool) {
		rng, t := rand.New(rand.NewPCG(seed, 0x5a9e)), 0.
		return func() (Request, bool) {
			for {
				t += rng.ExpFloat64() / (s.peak * scale)
				at := time.Duration(t * float64(time.Second))
				if at >= s.until {
					return Request{}, false
				}
				if rng.Float64()*s.peak < s.rate(at) {
					p, o := s.size(at, rng)
					return Request{At: at, Prompt: p, Output: o}, true
				}
			}
		}
	}}
}

// spread draws log-normal lengths of a mean, within an eighth and eight times of it.
func spread(rng *rand.Rand, mean float64) int { return wide(rng, mean, .3) }

func wide(rng *rand.Rand, mean, sigma float64) int {
	x := mean * math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2)
	return max(1, int(min(max(x, mean/8), mean*8)))
}

// chat is the size of requests of the ramp, step and sine.
func chat(_ time.Duration, rng *rand.Rand) (prompt, output int) {
	return spread(rng, 4000), spread(rng, 1000)
}

const hour = time.Hour

// shapes are the workloads that need no trace.
func shapes() []shape {
	levels := []float64{4, 8, 12, 16, 20, 8, 2}
	return []shape{
		{"ramp", "4, 8, 12, 16, 20, 8, 2 requests/s in seven steps of an hour, 4,000 tokens in and 1,000 out (twice llm-d's ramp)", hour,
			func(t time.Duration) float64 { return levels[min(6, int(t*7/hour))] }, 20, chat},
		{"step", "2, and from minute 12 on 20 requests/s, 4,000 tokens in and 1,000 out", hour,
			func(t time.Duration) float64 { return map[bool]float64{true: 2, false: 20}[t < 12*time.Minute] }, 20, chat},
		{"sine", "10 +- 6 requests/s in waves of 30 minutes, 2.5 times that for 3 minutes on the crest of the second; 4,000 tokens in and 1,000 out",
			hour, sine, 40, chat},
		{"mixshift", "20 requests/s of 8,000 tokens in and 100 out, and 30 of 500 in and 1,500 out, in turn, 5 minutes from one to the other",
			hour, func(t time.Duration) float64 { return 20 + 10*decodes(t) }, 30, mixed},
	}
}

func sine(t time.Duration) float64 {
	rate := 10 - 6*math.Cos(2*math.Pi*t.Minutes()/30)
	if m := t.Minutes(); m >= 43.5 && m < 46.5 {
		rate *= 2.5
	}
	return rate
}

// decodes is the share of requests with long answers.
func decodes(t time.Duration) float64 {
	m := t.Minutes()
	switch {
	case m < 35:
		return min(1, max(0, (m-15)/5))
	default:
		return min(1, max(0, (40-m)/5))
	}
}

func mixed(t time.Duration, rng *rand.Rand) (prompt, output int) {
	d := decodes(t)
	if rng.Float64()*(20*(1-d)+30*d) < 30*d {
		return spread(rng, 500), spread(rng, 1500)
	}
	return spread(rng, 8000), spread(rng, 100)
}

// Shape returns one of the workloads that need no trace, at scale times its rate; 0 is 1.
func Shape(name string, scale float64) (Work, error) {
	all := shapes()
	i := slices.IndexFunc(all, func(s shape) bool { return s.name == name })
	if i < 0 {
		return Work{}, fmt.Errorf("workload %q is no shape", name)
	}
	if scale == 0 {
		scale = 1
	}
	return all[i].work(scale), nil
}

// Count is how many requests of seed 1 come. Cost: a pass over them.
func (w *Work) Count() float64 {
	n := 0.
	w.each(func(*Request) { n++ })
	return n
}

// each hands out the requests of seed 1.
func (w *Work) each(do func(*Request)) {
	w.of(1, do)
}

// of hands out the requests of a seed.
func (w *Work) of(seed uint64, do func(*Request)) {
	next := w.Requests(seed)
	for r, ok := next(); ok && r.At < w.Until; r, ok = next() {
		do(&r)
	}
}

// Peak is how many replicas of each role the reference model keeps busy in the busiest minute.
func Peak(w *Work, slo sim.SLO) (prefill, decode float64) {
	minutes := make([]demand, w.Until/time.Minute+1)
	model := enginesim.Reference
	prior := Truth{Prefill: model, Decode: model}.Model()
	w.each(func(r *Request) { minutes[r.At/time.Minute].add(r, prior, slo) })
	for _, m := range minutes {
		prefill, decode = max(prefill, m.prefill/60), max(decode, m.decode/60)
	}
	return prefill, decode
}
