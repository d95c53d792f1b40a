package elastic

import (
	"math"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Metrics of a run. A request is good that keeps both objectives: the time to its first token, and the mean time between
// its tokens. One that is lost, or not over 3 minutes after the last arrival, is not.
type Metrics struct {
	Requests   int     `json:"requests"`
	Joint      float64 `json:"joint_attainment"`          // good share of all
	Feasible   float64 `json:"joint_attainment_feasible"` // good share of those that some number of replicas could serve in time
	Infeasible float64 `json:"infeasible"`                // share that none could

	GPU         float64            `json:"gpu_s"` // starting and draining included, until the last arrival
	GPUStarting float64            `json:"gpu_s_starting"`
	GPUDraining float64            `json:"gpu_s_draining"`
	Avg         map[string]float64 `json:"avg_replicas"`
	Max         map[string]int     `json:"max_replicas"`
	Flips       map[string]float64 `json:"flips_per_h"` // changes of direction of what is ordered and does not drain

	Worst      float64  `json:"worst_5min"` // good share in the worst 5 minutes, by arrival, of those with at least 20 requests
	TTFT       float64  `json:"ttft_p50_s"`
	TTFT99     float64  `json:"ttft_p99_s"`
	TTFT999    float64  `json:"ttft_p999_s"`
	Lost       int      `json:"lost_requests"`
	Unanswered int      `json:"unanswered"` // when the run ended
	Duplicates int      `json:"duplicate_orders"`
	Ordered    int      `json:"replicas_ordered"`
	Unused     int      `json:"replicas_unused"`  // ordered, and taken away before they were ready
	ToOffline  *float64 `json:"ratio_to_offline"` // of gpu_s to that of offline-optimum on the same seed; null where that was not run
}

// Result is one run.
type Result struct {
	Metrics Metrics
	Samples []Sample
}

// Sample is the run at one tick.
type Sample struct {
	At       float64                 `json:"t"` // s
	Roles    map[decide.Role][4]int  `json:"r"` // ordered, serving, starting, draining
	Queued   int                     `json:"q"`
	Requests int                     `json:"n"`           // that arrived since the last sample
	Good     int                     `json:"g"`           // of these
	Demand   map[decide.Role]float64 `json:"d"`           // replicas that these keep busy at the true speed, /s
	Said     map[decide.Role]string  `json:"s,omitempty"` // why it was decided so, where replicas were ordered or given up
}

// meter measures a run.
type meter struct {
	cell     *Cell
	progress func(done, all int)
	decided  func() *decide.Decision
	enough   func() bool // of a run that may end before its end; nil of others
	late     int         // of the requests that could be served in time, those that were not

	arrived, feasible, good, fine, lost, over int
	minutes                                   []share
	ttft                                      []float32
	series                                    []Sample
	bins                                      []bin
}

// share is a part of requests.
type share struct{ good, all int }

// bin is what arrived in one tick.
type bin struct {
	share
	demand
}

const grain = 5 * time.Second

func newMeter(c *Cell) *meter {
	return &meter{cell: c, minutes: make([]share, c.Work.Until/time.Minute+1), bins: make([]bin, c.Work.Until/grain+1)}
}

// arrivals are those of the cell's work, counted as they are taken.
func (m *meter) arrivals(t Truth) func() (sim.Arrival, bool) {
	next, model := m.cell.Work.Requests(m.cell.Seed), t.Model()
	number := uint64(0)
	return func() (sim.Arrival, bool) {
		r, ok := next()
		if !ok || r.At >= m.cell.Work.Until {
			return sim.Arrival{}, false
		}
		number++
		fits := fits(&r, t, m.cell.SLO)
		m.arrived++
		if fits {
			m.feasible++
		}
		m.minutes[r.At/time.Minute].all++
		b := &m.bins[r.At/grain]
		b.all++
		b.add(&r, model, m.cell.SLO)
		if r.Blocks == nil {
			r.Blocks = sim.Prompt{{ID: number, Tokens: r.Prompt}}
		}
		return sim.Arrival{At: r.At, Prompt: r.Blocks, Output: r.Output, Fits: fits}, true
	}
}

// fits says whether an empty fleet, with all cached that could be, would answer in time.
func fits(r *Request, t Truth, slo sim.SLO) bool {
	m := t.Model()
	alone := m.Overhead*math.Ceil(float64(r.Prompt-r.Cached)/8192) + float64(r.Prompt-r.Cached)/m.Rate
	transfer := .001 + float64(r.Prompt-r.Cached)*float64(t.Decode.KVBytes)/70e9
	step := (m.Step + m.Sequence + m.Kilo*float64(r.Prompt)/1000) / 1000
	return alone+transfer+step <= slo.TTFT.Seconds() && step <= slo.ITL.Seconds()
}

// answered takes a request that is over.
func (m *meter) answered(o sim.Outcome) {
	m.over++
	if m.progress != nil && m.over%1024 == 0 {
		m.progress(int(o.At/time.Second), int(m.cell.Work.Until/time.Second))
	}
	if o.Lost {
		m.lost++
		m.missed(o)
		return
	}
	m.ttft = append(m.ttft, float32(o.TTFT.Seconds()))
	if o.TTFT > m.cell.SLO.TTFT || o.ITL > m.cell.SLO.ITL {
		m.missed(o)
		return
	}
	m.good++
	if o.Fits {
		m.fine++
	}
	m.minutes[o.At/time.Minute].good++
	m.bins[o.At/grain].good++
}

func (m *meter) missed(o sim.Outcome) {
	if o.Fits {
		m.late++
	}
}

// ticked takes a sample of the fleet.
func (m *meter) ticked(t sim.Tick) {
	if t.At > m.cell.Work.Until {
		return
	}
	s := Sample{At: t.At.Seconds(), Roles: map[decide.Role][4]int{}, Queued: t.Queued}
	for role, c := range t.Roles {
		s.Roles[role] = [4]int{c.Ordered, c.Serving, c.Starting, c.Draining}
	}
	d := m.decided()
	for _, step := range t.Steps {
		if step.Do == decide.Undrain || d == nil {
			continue
		}
		if s.Said == nil {
			s.Said = map[decide.Role]string{}
		}
		s.Said[step.Role] = d.Roles[step.Role].Rule
	}
	m.series = append(m.series, s)
}

// result sums up.
func (m *meter) result(e *sim.Elapsed) *Result {
	hours := e.Until.Hours()
	r := &Result{Metrics: Metrics{
		Requests: m.arrived, Joint: ratio(m.good, m.arrived), Feasible: ratio(m.fine, m.feasible), Infeasible: 1 - ratio(m.feasible, m.arrived),
		Avg: map[string]float64{}, Max: map[string]int{}, Flips: map[string]float64{}, Worst: m.worst(), Lost: m.lost, Unanswered: m.arrived - m.over,
	}}
	o := &r.Metrics
	for role, s := range e.Roles {
		o.GPU += gpus * s.Seconds
		o.GPUStarting += gpus * s.Starting
		o.GPUDraining += gpus * s.Draining
		o.Avg[string(role)] = s.Seconds / e.Until.Seconds()
		o.Max[string(role)] = s.Most
		o.Flips[string(role)] = float64(s.Flips) / hours
		o.Duplicates += s.Duplicates
		o.Ordered += s.Ordered
		o.Unused += s.Unused
	}
	slices.Sort(m.ttft)
	o.TTFT, o.TTFT99, o.TTFT999 = rank(m.ttft, .5), rank(m.ttft, .99), rank(m.ttft, .999)
	for i := range m.series {
		if i < len(m.bins) {
			b := m.bins[i]
			m.series[i].Requests, m.series[i].Good = b.all, b.good
			m.series[i].Demand = map[decide.Role]float64{decide.Prefill: b.prefill / grain.Seconds(), decide.Decode: b.decode / grain.Seconds()}
		}
	}
	r.Samples = m.series
	return r
}

// worst is the least share over 5 minutes in a row.
func (m *meter) worst() float64 {
	least := 1.
	for i := range m.minutes {
		var w share
		for _, s := range m.minutes[i:min(i+5, len(m.minutes))] {
			w.good, w.all = w.good+s.good, w.all+s.all
		}
		if w.all >= 20 {
			least = min(least, ratio(w.good, w.all))
		}
	}
	return least
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 1
	}
	return float64(a) / float64(b)
}

// rank is the quantile of sorted values by the nearest rank; 0 of none.
func rank(sorted []float32, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, int(math.Ceil(q*float64(len(sorted))))-1)])
}
