package sim

import (
	"slices"
	"time"
)

// Point is how a run answered at one offered load: a stage, or all windows of a trace in which about as many requests
// came. Times are in seconds.
type Point struct {
	Rate        float64 `json:"offered_rps,omitempty"`
	Concurrency int     `json:"concurrency,omitempty"` // of a closed stage, which has no rate
	Offered     int     `json:"offered"`
	OutputTokS  float64 `json:"output_tok_s,omitempty"` // of a stage
	TTFTP50     float64 `json:"ttft_p50_s"`
	TTFTP90     float64 `json:"ttft_p90_s"`
	HitRatio    float64 `json:"hit_ratio"`
}

const (
	loadWindow = 30 * time.Second
	loadBins   = 10

	leastWindows = 3 // of a bin
)

// byLoad returns a point a stage, or where there is one open stage alone, as a trace has, loadBins of windows sorted by
// their rate. A request counts where it was sent, its answer whenever it came.
func (f *world) byLoad(w *Workload, byStage [][]answer, stages []StageResult) (points []Point) {
	if len(w.Stages) == 1 && w.Stages[0].Concurrency == 0 {
		return f.byRate(byStage[0])
	}
	for i, stage := range w.Stages {
		if stage.WarmUp || len(byStage[i]) == 0 {
			continue
		}
		p := f.point(byStage[i])
		p.OutputTokS, p.Concurrency = stages[i].OutputTokS, stage.Concurrency
		if p.Concurrency == 0 {
			last := time.Duration(0)
			for _, s := range stage.Sessions {
				last = max(last, s.At)
			}
			p.Rate = float64(p.Offered) / max(last.Seconds(), 1)
		}
		points = append(points, p)
	}
	return points
}

// byRate puts windows of about the same rate together, about as many of them in each bin.
func (f *world) byRate(answers []answer) (points []Point) {
	windows := map[time.Duration][]answer{}
	for _, a := range answers {
		windows[a.sent/loadWindow] = append(windows[a.sent/loadWindow], a)
	}
	if len(answers) == 0 {
		return nil
	}
	var order []time.Duration
	for n := range windows {
		order = append(order, n)
	}
	slices.SortFunc(order, func(a, b time.Duration) int {
		if d := len(windows[a]) - len(windows[b]); d != 0 {
			return d
		}
		return int(a - b)
	})
	bins := max(1, min(loadBins, len(order)/leastWindows))
	for i := range bins {
		var all []answer
		in := order[i*len(order)/bins : (i+1)*len(order)/bins]
		for _, n := range in {
			all = append(all, windows[n]...)
		}
		p := f.point(all)
		p.Rate = float64(p.Offered) / (float64(len(in)) * loadWindow.Seconds())
		points = append(points, p)
	}
	return points
}

func (f *world) point(answers []answer) Point {
	p := Point{Offered: len(answers)}
	var ttft []float64
	prompt, hit := 0, 0
	for _, a := range answers {
		if a.refused {
			continue
		}
		ttft = append(ttft, (a.first - a.sent + f.o.FrontEnd).Seconds())
		prompt, hit = prompt+a.prompt, hit+a.hit
	}
	p.TTFTP50, p.TTFTP90, p.HitRatio = quantile(ttft, .5), quantile(ttft, .9), float64(hit)/float64(max(1, prompt))
	return p
}
