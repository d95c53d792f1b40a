package sim

import (
	"math"
	"slices"
	"time"
)

// Result is what came of one run.
type Result struct {
	Metrics   Metrics
	Stages    []StageResult
	ByLoad    []Point
	PerEngine []EngineResult
	Load      FleetLoad
	Virtual   time.Duration // until the last answer; 0 without requests
}

// Metrics of a run. Times are in seconds. TTFT, TPOT and hit ratio are over all answers, warm-up left out.
type Metrics struct {
	Offered            int     `json:"offered"`
	Completed          int     `json:"completed"`
	Shed               int     `json:"shed"`
	OutputTokS         float64 `json:"output_tok_s"` // mean of the stages but for the warm-up, each until its last answer
	Goodput            float64 `json:"goodput"`      // share of the offered requests that keep both objectives
	GoodputLengthAware float64 `json:"goodput_length_aware"`
	TTFTMean           float64 `json:"ttft_mean_s"`
	TTFTP50            float64 `json:"ttft_p50_s"`
	TTFTP90            float64 `json:"ttft_p90_s"`
	TTFTP99            float64 `json:"ttft_p99_s"`
	TPOTMean           float64 `json:"tpot_mean_s"`
	ITLMaxP99          float64 `json:"itl_max_p99_s"` // p99 over answers of the longest gap in each
	HitRatio           float64 `json:"hit_ratio"`     // prompt tokens found in the cache at first admission
	CacheEfficiency    float64 `json:"cache_efficiency"`
	Preemptions        int64   `json:"preemptions"`
	BusyMaxOverMean    float64 `json:"busy_max_over_mean"`
}

// StageResult is the throughput of one stage.
type StageResult struct {
	WarmUp     bool
	Offered    int
	Seconds    float64 // until its last answer
	OutputTokS float64
	TTFTMean   float64
	TTFTP90    float64
	HitRatio   float64
}

// EngineResult is what one engine did.
type EngineResult struct {
	Requests      int     // answered by it
	PrefillTokens int     // prompt tokens computed
	BusySeconds   float64 // in steps
}

// result sums up the answers.
func (f *world) result(w *Workload) *Result {
	r := &Result{PerEngine: make([]EngineResult, len(f.engines))}
	all := make([]answer, 0, len(f.answers))
	byStage := make([][]answer, len(w.Stages))
	for _, a := range f.answers {
		byStage[a.stage] = append(byStage[a.stage], a)
		if !w.Stages[a.stage].WarmUp {
			all = append(all, a)
		}
		if a.refused {
			continue
		}
		e := &r.PerEngine[a.engine]
		e.Requests++
		r.PerEngine[a.prefill].PrefillTokens += a.prompt - a.hit
	}
	for i, answers := range byStage {
		s := stageResult(answers, f.client.ends[i]-f.client.began[i], f.o.FrontEnd)
		s.WarmUp = w.Stages[i].WarmUp
		r.Virtual = f.client.ends[i]
		r.Stages = append(r.Stages, s)
	}
	r.ByLoad, r.Load = f.byLoad(w, byStage, r.Stages), f.load.done(f.o.Scrape)
	r.Metrics = measure(all, f.o)
	counted := 0
	for _, s := range r.Stages {
		if !s.WarmUp && s.Offered > 0 {
			r.Metrics.OutputTokS += s.OutputTokS
			counted++
		}
	}
	r.Metrics.OutputTokS /= float64(max(1, counted))
	most, sum := 0., 0.
	for i, e := range f.engines {
		r.PerEngine[i].BusySeconds = e.worked.Seconds()
		most, sum = max(most, e.worked.Seconds()), sum+e.worked.Seconds()
		r.Metrics.Preemptions += e.preempted + e.core.Stats().Preemptions
	}
	if sum > 0 {
		r.Metrics.BusyMaxOverMean = most * float64(len(f.engines)) / sum
	}
	return r
}

func stageResult(answers []answer, lasted, frontEnd time.Duration) StageResult {
	s := StageResult{Offered: len(answers), Seconds: lasted.Seconds()}
	var ttft []float64
	output, prompt, hit := 0, 0, 0
	for _, a := range answers {
		if a.refused {
			continue
		}
		output, prompt, hit = output+a.output, prompt+a.prompt, hit+a.hit
		ttft = append(ttft, (a.first - a.sent + frontEnd).Seconds())
	}
	if s.Seconds > 0 {
		s.OutputTokS = float64(output) / s.Seconds
	}
	s.TTFTMean, s.TTFTP90, s.HitRatio = mean(ttft), quantile(ttft, .9), float64(hit)/float64(max(1, prompt))
	return s
}

// measure computes what is pooled over answers.
func measure(answers []answer, o Options) Metrics {
	m := Metrics{Offered: len(answers)}
	var ttft, tpot, slowest []float64
	prompt, hit, good, fair := 0, 0, 0, 0
	for _, a := range answers {
		if a.refused {
			continue
		}
		m.Completed++
		t := a.first - a.sent + o.FrontEnd
		ttft = append(ttft, t.Seconds())
		gap := 0.
		if a.output > 1 {
			gap = (a.last - a.first).Seconds() / float64(a.output-1)
			tpot, slowest = append(tpot, gap), append(slowest, a.slowest.Seconds())
		}
		prompt, hit = prompt+a.prompt, hit+a.hit
		smooth := gap <= o.SLO.ITL.Seconds()
		if smooth && t <= o.SLO.TTFT {
			good++
		}
		if smooth && t <= max(o.SLO.TTFT, 3*a.alone) {
			fair++
		}
	}
	offered := float64(max(1, m.Offered))
	m.Goodput, m.GoodputLengthAware = float64(good)/offered, float64(fair)/offered
	m.TTFTMean, m.TTFTP50, m.TTFTP90, m.TTFTP99 = mean(ttft), quantile(ttft, .5), quantile(ttft, .9), quantile(ttft, .99)
	m.TPOTMean, m.ITLMaxP99 = mean(tpot), quantile(slowest, .99)
	m.HitRatio = float64(hit) / float64(max(1, prompt))
	m.Shed = m.Offered - m.Completed
	return m
}

func mean(values []float64) (m float64) {
	for _, v := range values {
		m += v
	}
	return m / float64(max(1, len(values)))
}

// quantile is the nearest rank; it sorts values.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(math.Ceil(q*float64(len(values))))-1)]
}
