package realtime

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// ErrUnplaced is wrapped by Judge's error about a request that no engine answered.
var ErrUnplaced = errors.New("no engine answered")

// slo is what a request must keep to count for Quality.Goodput.
var slo = sim.SLO{TTFT: 2 * time.Second, ITL: 50 * time.Millisecond}

// Quality says how well routers placed a trace: what engines make of the same placements in virtual time, where no
// busy machine delays anything. Times are in trace time.
type Quality struct {
	Goodput   float64 `json:"goodput"` // share of requests within 2 s to the first token and 50 ms between tokens
	TTFTMean  float64 `json:"ttft_mean_s"`
	TTFTP90   float64 `json:"ttft_p90_s"`
	HitRatio  float64 `json:"hit_ratio"`
	PerEngine []int   `json:"per_engine"`
	Measured  float64 `json:"ttft_mean_measured_s"` // as the client saw it, with all that this machine adds
}

// Judge serves the trace in virtual time, each request on the engine that answered it in real time. seats tells for the
// names of engines which number each has.
func Judge(t workload.Trace, r *run.Result, seats map[string]int, p enginesim.Profile) (Quality, error) {
	placed, measured := make([]int, len(t.Requests)), make([]float64, 0, len(t.Requests))
	if len(r.Outcomes) != len(placed) {
		return Quality{}, fmt.Errorf("judge placements: %d of %d requests were sent", len(r.Outcomes), len(placed))
	}
	for i := range r.Outcomes {
		out := &r.Outcomes[i]
		seat, known := seats[out.Engine]
		if out.Err != nil || !known {
			return Quality{}, fmt.Errorf("judge placements: request %d: %w", i, errors.Join(ErrUnplaced, out.Err))
		}
		placed[i] = seat
		measured = append(measured, out.TTFT().Seconds())
	}
	served, good := half{per: make([]int, len(seats))}, 0
	w := sim.FromTrace(t, 1)
	_, err := sim.Run(sim.Options{
		Pods: len(seats), Profile: p, BlockSize: BlockSize, Noise: -1, Policy: sim.Placed, Placed: placed,
		Answered: func(a sim.Answer) {
			served.add(&a)
			if !a.Refused && a.TTFT <= slo.TTFT && a.TPOT <= slo.ITL {
				good++
			}
		},
	}, &w, nil)
	if err != nil {
		return Quality{}, fmt.Errorf("judge placements: %w", err)
	}
	s := served.side()
	return Quality{
		Goodput: ratio(float64(good), float64(len(placed))), TTFTMean: s.TTFTMean, TTFTP90: s.TTFTP90, HitRatio: s.HitRatio,
		PerEngine: s.PerEngine, Measured: mean(measured),
	}, nil
}

// Trial is one trace, placed by one router, by several that hear one another, and by as many that do not.
type Trial struct {
	One  Quality `json:"one"`
	Told Quality `json:"told"`
	Deaf Quality `json:"deaf"`
}

// lag is how many times as long as its placements make it a client may wait where the machine keeps up.
const lag = 1.4

// KeptUp says whether the machine was quick enough for the trial's pace: clients waited hardly longer than the
// placements made them. Where it was not, routers saw late what engines did, and chose by that.
func (t *Trial) KeptUp() bool {
	for _, q := range []*Quality{&t.One, &t.Told, &t.Deaf} {
		if q.Measured > lag*q.TTFTMean {
			return false
		}
	}
	return true
}

// Gap is how much more of something several routers have than one, as a share of what one has: the mean over trials,
// and its 95 % interval.
type Gap struct {
	Mean float64      `json:"mean"`
	CI95 sim.Interval `json:"ci95"`
}

// Routers compares several routers with one; the shape of bench/routers.json below its header.
type Routers struct {
	Trace   string         `json:"trace"`
	Seconds float64        `json:"seconds"` // of the trace
	Routers int            `json:"routers"`
	Told    map[string]Gap `json:"told"` // by figure: goodput, ttft_mean, ttft_p90, hit_ratio
	Deaf    map[string]Gap `json:"deaf"`
	Trials  []Trial        `json:"trials"`
	TooBusy int            `json:"too_busy"` // trials that the machine did not keep up with; they are in nothing above
}

// figures of a Quality that are compared.
var figures = []struct {
	name string
	of   func(q *Quality) float64
}{
	{"goodput", func(q *Quality) float64 { return q.Goodput }},
	{"ttft_mean", func(q *Quality) float64 { return q.TTFTMean }},
	{"ttft_p90", func(q *Quality) float64 { return q.TTFTP90 }},
	{"hit_ratio", func(q *Quality) float64 { return q.HitRatio }},
}

// Add takes in a trial, or counts it where the machine did not keep up.
func (r *Routers) Add(t Trial) {
	if !t.KeptUp() {
		r.TooBusy++
		return
	}
	r.Trials = append(r.Trials, t)
	r.Told, r.Deaf = r.gaps(func(t *Trial) *Quality { return &t.Told }), r.gaps(func(t *Trial) *Quality { return &t.Deaf })
}

func (r *Routers) gaps(arm func(t *Trial) *Quality) map[string]Gap {
	gaps := map[string]Gap{}
	for _, f := range figures {
		var values []float64
		for i := range r.Trials {
			values = append(values, ratio(f.of(arm(&r.Trials[i])), f.of(&r.Trials[i].One))-1)
		}
		var g Gap
		g.Mean, g.CI95 = sim.MeanInterval(values)
		gaps[f.name] = g
	}
	return gaps
}

// Table writes the comparison for a terminal.
func (r *Routers) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "routers\tgoodput\tTTFT mean\tTTFT p90\thit ratio\tTTFT measured\t")
	one := func(t *Trial) *Quality { return &t.One }
	told := func(t *Trial) *Quality { return &t.Told }
	deaf := func(t *Trial) *Quality { return &t.Deaf }
	for _, l := range []struct {
		name string
		arm  func(t *Trial) *Quality
		gaps map[string]Gap
	}{{"1", one, nil}, {fmt.Sprint(r.Routers), told, r.Told}, {fmt.Sprint(r.Routers, " deaf"), deaf, r.Deaf}} {
		q := r.mean(l.arm)
		fmt.Fprintf(t, "%s\t%.4f\t%.3f s\t%.3f s\t%.4f\t%.3f s\t\n", l.name, q.Goodput, q.TTFTMean, q.TTFTP90, q.HitRatio, q.Measured)
		if l.gaps != nil {
			for _, f := range figures {
				g := l.gaps[f.name]
				fmt.Fprintf(t, "\t%+.1f %% [%+.1f, %+.1f]", 100*g.Mean, 100*g.CI95[0], 100*g.CI95[1])
			}
			fmt.Fprintln(t, "\t\t")
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	_, err := fmt.Fprintf(w, "means of %d trials; below them, against one router, with 95 %% intervals of pairs; %d more left out: this machine was too busy\n",
		len(r.Trials), r.TooBusy)
	return err
}

// mean is that of an arm over all trials, engines apart.
func (r *Routers) mean(arm func(t *Trial) *Quality) (m Quality) {
	n := float64(len(r.Trials))
	for i := range r.Trials {
		q := arm(&r.Trials[i])
		m.Goodput, m.TTFTMean, m.TTFTP90 = m.Goodput+q.Goodput/n, m.TTFTMean+q.TTFTMean/n, m.TTFTP90+q.TTFTP90/n
		m.HitRatio, m.Measured = m.HitRatio+q.HitRatio/n, m.Measured+q.Measured/n
	}
	return m
}
