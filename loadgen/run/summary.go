package run

import (
	"math"
	"slices"
	"time"
)

// Summary is a run in few numbers; the value of a policy in bench/demo.json. Times are in trace time.
type Summary struct {
	Requests  int      `json:"requests"`     // that were due
	HitRatio  float64  `json:"hit_ratio"`    // cached prompt tokens / prompt tokens, of answers that say so
	TTFTP50   float64  `json:"ttft_p50_s"`   // from the moment when the request was due
	TTFTP90   float64  `json:"ttft_p90_s"`   //
	ITLP50    float64  `json:"itl_p50_s"`    // over requests, of the mean time between two tokens
	OutputTok float64  `json:"output_tok_s"` // output tokens / time from the first request due to the last token
	PerEngine []int    `json:"per_engine"`   // requests, in the order of Engines
	Engines   []string `json:"engines"`      // names; empty where the endpoint names none
	Errors    int      `json:"errors"`       // requests that failed; they are in Requests and in no time
	Late      int      `json:"late"`         // requests sent more than LateAfter of wall time after they were due
	LateMaxS  float64  `json:"late_max_s"`   // the most that one was sent late
}

// LateAfter is the delay in wall time from which a request counts as sent late.
const LateAfter = 20 * time.Millisecond

// Summary computes it. Engines are listed in the order given, whether they served anything or not, then others in
// order of name.
func (r *Result) Summary(engines ...string) Summary {
	s := Summary{Requests: len(r.Outcomes), Engines: append([]string{}, engines...)}
	s.countEngines(r.Outcomes)
	var ttft, itl []float64
	var prompt, cached, output int
	first, last := time.Duration(math.MaxInt64), time.Duration(0)
	for _, o := range r.Outcomes {
		first, last = min(first, o.Intended), max(last, o.Last)
		if late := o.Sent - o.Intended; float64(late) > float64(LateAfter)*r.TimeScale {
			s.Late++
			s.LateMaxS = max(s.LateMaxS, late.Seconds())
		}
		output += o.Output
		if o.Err != nil {
			s.Errors++
			continue
		}
		ttft = append(ttft, o.TTFT().Seconds())
		if o.Output > 1 {
			itl = append(itl, o.ITL().Seconds())
		}
		if o.Cached >= 0 {
			prompt, cached = prompt+o.Prompt, cached+o.Cached
		}
	}
	s.TTFTP50, s.TTFTP90, s.ITLP50 = quantile(ttft, .5), quantile(ttft, .9), quantile(itl, .5)
	if prompt > 0 {
		s.HitRatio = float64(cached) / float64(prompt)
	}
	if last > first {
		s.OutputTok = float64(output) / (last - first).Seconds()
	}
	return s
}

// TTFT is the time from when the request was due to its first token; meaningless where Err is set.
func (out *Outcome) TTFT() time.Duration { return out.First - out.Intended }

// ITL is the mean time between two tokens of the answer, meaningless for fewer than two. (A median over single gaps would
// say how the driver's machine schedules: tokens that it reads at once have none between them.)
func (out *Outcome) ITL() time.Duration { return (out.Last - out.First) / time.Duration(out.Output-1) }

func (s *Summary) countEngines(outcomes []Outcome) {
	counts := map[string]int{}
	for _, o := range outcomes {
		if o.Engine != "" {
			counts[o.Engine]++
		}
	}
	var others []string
	for name := range counts {
		if !slices.Contains(s.Engines, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	s.Engines = append(s.Engines, others...)
	s.PerEngine = make([]int, len(s.Engines))
	for i, name := range s.Engines {
		s.PerEngine[i] = counts[name]
	}
}

// quantile sorts values and returns the nearest rank; 0 of nothing.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, int(math.Ceil(q*float64(len(values))))-1)]
}
