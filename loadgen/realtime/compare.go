package realtime

import (
	"math"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/sim"
)

// Measured is what a run in real time left behind.
type Measured struct {
	Result *run.Result
	Gate   *Gate
	Seats  map[string]int     // engine names, and which engine of virtual time each is
	Steps  []float64          // seconds that engines ended steps after their deadlines
	Stages map[string]float64 // mean seconds of the router's own stages
	Took   Process
}

// Report is the comparison; the shape of bench/realtime.json below its header.
type Report struct {
	Trace     string    `json:"trace"`
	Seconds   float64   `json:"seconds"`  // of the trace
	Requests  int       `json:"requests"` // answered in both
	Virtual   Side      `json:"virtual"`
	Real      Side      `json:"real"`
	TTFTRatio float64   `json:"ttft_ratio"` // of the means, real over virtual
	TPOTRatio float64   `json:"tpot_ratio"`
	Agree     bool      `json:"agree"` // both ratios within Tolerance of 1
	Explained Explained `json:"explained"`
}

// Side is one of the two runs, over the requests that both answered.
type Side struct {
	TTFTMean  float64 `json:"ttft_mean_s"` // from when a request was due
	TTFTP50   float64 `json:"ttft_p50_s"`
	TTFTP90   float64 `json:"ttft_p90_s"`
	TPOTMean  float64 `json:"tpot_mean_s"`
	TPOTP50   float64 `json:"tpot_p50_s"`
	TPOTP90   float64 `json:"tpot_p90_s"`
	HitRatio  float64 `json:"hit_ratio"`
	HitTokens int     `json:"hit_tokens"`
	PerEngine []int   `json:"per_engine"`
	Failed    int     `json:"failed"` // requests that this side did not answer; in nothing above
}

// Explained says where real time departs from virtual time. All differences are real less virtual, of the same request.
type Explained struct {
	FrontEnd   float64 `json:"front_end_ms"` // added to each TTFT in virtual time: from client to queue and back, unloaded, by measurement
	SameEngine int     `json:"same_engine"`  // requests that the same engine served in both
	SameHit    int     `json:"same_hit"`     // requests with as many cached tokens in both
	TTFT       Spread  `json:"ttft_difference_ms"`
	TPOT       Spread  `json:"tpot_difference_ms"`
	Late       Spread  `json:"sent_late_ms"`   // from when a request was due until it was sent
	Path       Spread  `json:"path_ms"`        // from there until it waited in an engine: HTTP, router, scorer, reading of the body, hashing
	ByPrompt   []Path  `json:"path_by_prompt"` // the path again: reading a body takes long where it is long
	Rest       Spread  `json:"in_engine_ms"`   // difference of the time from there to the first token, front end left out
	Steps      Spread  `json:"steps_late_ms"`  // how long after its deadline a step ended
	Stages     Stages  `json:"router_mean_ms"` // parts of the path
	Process    Process `json:"process"`
}

// Path is the path of prompts up to a length.
type Path struct {
	Tokens   int     `json:"tokens"` // that such a prompt has at most; 0 is without bound
	Requests int     `json:"requests"`
	Mean     float64 `json:"mean_ms"`
}

// Stages are the means of the router's stages.
type Stages struct {
	Read  float64 `json:"read"`
	Score float64 `json:"score"`
	Pick  float64 `json:"pick"`
}

// Spread is a distribution.
type Spread struct {
	Mean float64 `json:"mean"`
	P10  float64 `json:"p10"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// Compare pairs the answers in virtual time, which are those of the whole trace in its order and have frontEnd in them,
// with what was measured. Requests that one side did not answer are left out of both.
func Compare(virtual []sim.Answer, m *Measured, engines int, frontEnd time.Duration) Report {
	c := comparison{frontEnd: frontEnd, m: m}
	c.virtual.per, c.real.per = make([]int, engines), make([]int, engines)
	for i := range m.Result.Outcomes {
		out := &m.Result.Outcomes[i]
		if v := &virtual[out.Request]; out.Err != nil || v.Refused {
			c.virtual.count(v.Refused)
			c.real.count(out.Err != nil)
		} else {
			c.pair(v, out)
		}
	}
	r := Report{Requests: c.requests, Virtual: c.virtual.side(), Real: c.real.side(), Explained: c.explained()}
	r.TTFTRatio, r.TPOTRatio = ratio(r.Real.TTFTMean, r.Virtual.TTFTMean), ratio(r.Real.TPOTMean, r.Virtual.TPOTMean)
	r.Agree = math.Abs(r.TTFTRatio-1) <= Tolerance && math.Abs(r.TPOTRatio-1) <= Tolerance
	return r
}

// comparison gathers pairs. Times are in seconds.
type comparison struct {
	m             *Measured
	frontEnd      time.Duration
	virtual, real half
	requests      int
	same, hit     int
	ttft, tpot    []float64
	late, path    []float64
	rest          []float64
	byPrompt      [4]struct {
		requests int
		seconds  float64
	}
}

// lengths are the bounds of Explained.ByPrompt.
var lengths = [4]int{4096, 16_384, 65_536, 0}

// half is one side under way.
type half struct {
	ttft, tpot          []float64
	prompt, hit, failed int
	per                 []int
}

func (c *comparison) pair(v *sim.Answer, out *run.Outcome) {
	c.requests++
	r := sim.Answer{Engine: -1, Prompt: out.Prompt, Hit: max(0, out.Cached), Output: out.Output, TTFT: out.TTFT()}
	if seat, ok := c.m.Seats[out.Engine]; ok {
		r.Engine = seat
	}
	if out.Output > 1 {
		r.TPOT = out.ITL()
	}
	c.virtual.add(v)
	c.real.add(&r)
	if r.Engine == v.Engine {
		c.same++
	}
	if r.Hit == v.Hit {
		c.hit++
	}
	c.ttft = append(c.ttft, (r.TTFT - v.TTFT).Seconds())
	if r.TPOT > 0 && v.TPOT > 0 {
		c.tpot = append(c.tpot, (r.TPOT - v.TPOT).Seconds())
	}
	c.late = append(c.late, (out.Sent - out.Intended).Seconds())
	if at := c.m.Gate.Reached(out.Request); !at.IsZero() {
		reached := at.Sub(c.m.Result.Start)
		c.path = append(c.path, (reached - out.Sent).Seconds())
		p := &c.byPrompt[slices.IndexFunc(lengths[:], func(most int) bool { return out.Prompt <= most || most == 0 })]
		p.requests, p.seconds = p.requests+1, p.seconds+(reached-out.Sent).Seconds()
		c.rest = append(c.rest, (out.First - reached - (v.TTFT - c.frontEnd)).Seconds())
	}
}

func (c *comparison) explained() Explained {
	stage := func(name string) float64 { return 1000 * c.m.Stages[name] }
	var paths []Path
	for i, p := range c.byPrompt {
		paths = append(paths, Path{lengths[i], p.requests, 1000 * ratio(p.seconds, float64(p.requests))})
	}
	return Explained{
		FrontEnd: 1000 * c.frontEnd.Seconds(), SameEngine: c.same, SameHit: c.hit,
		TTFT: spread(c.ttft), TPOT: spread(c.tpot), Late: spread(c.late), Path: spread(c.path), ByPrompt: paths, Rest: spread(c.rest),
		Steps: spread(c.m.Steps), Stages: Stages{Read: stage("read"), Score: stage("score"), Pick: stage("pick")},
		Process: c.m.Took,
	}
}

func (h *half) count(failed bool) {
	if failed {
		h.failed++
	}
}

func (h *half) add(a *sim.Answer) {
	h.ttft = append(h.ttft, a.TTFT.Seconds())
	if a.Output > 1 {
		h.tpot = append(h.tpot, a.TPOT.Seconds())
	}
	h.prompt, h.hit = h.prompt+a.Prompt, h.hit+a.Hit
	if a.Engine >= 0 {
		h.per[a.Engine]++
	}
}

func (h *half) side() Side {
	return Side{
		TTFTMean: mean(h.ttft), TTFTP50: quantile(h.ttft, .5), TTFTP90: quantile(h.ttft, .9),
		TPOTMean: mean(h.tpot), TPOTP50: quantile(h.tpot, .5), TPOTP90: quantile(h.tpot, .9),
		HitRatio: ratio(float64(h.hit), float64(h.prompt)), HitTokens: h.hit, PerEngine: h.per, Failed: h.failed,
	}
}

// spread sorts values, which are in seconds, and describes them in milliseconds.
func spread(values []float64) Spread {
	at := func(q float64) float64 { return 1000 * quantile(values, q) }
	return Spread{Mean: 1000 * mean(values), P10: at(.1), P50: at(.5), P90: at(.9), P99: at(.99), Max: at(1)}
}

func mean(values []float64) (m float64) {
	for _, v := range values {
		m += v / float64(len(values))
	}
	return m
}

// quantile is the nearest rank; it sorts values. 0 of nothing.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, int(math.Ceil(q*float64(len(values))))-1)]
}

// ratio is 0 where there is nothing to divide by.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
