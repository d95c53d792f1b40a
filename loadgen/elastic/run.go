package elastic

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/warmpath/warmpath/loadgen/scalers"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Cell is one run that is wanted.
type Cell struct {
	Work     Work
	Policy   string
	Variant  string // default or tuned
	Service  Service
	Startup  time.Duration
	Seed     uint64
	SLO      sim.SLO
	Headroom float64 // of ours; 0 is its default
}

// Name is what a progress line calls the cell.
func (c *Cell) Name() string {
	name := fmt.Sprintf("%s %s %s %v seed %d", c.Work.Name, c.Policy, c.Service, c.Startup, c.Seed)
	if c.Variant != "" && c.Variant != Default {
		name += " " + c.Variant
	}
	if c.Headroom > 0 {
		name += fmt.Sprintf(" headroom %g", c.Headroom)
	}
	return name
}

// The variants of a policy.
const (
	Default = "default" // as published
	Tuned   = "tuned"   // with knobs set on two traces
)

// Run simulates the cell; offline-optimum first looks for its plan, in up to 400 runs. progress, if not nil, is told now
// and then how far the run is.
func (c *Cell) Run(ctx context.Context, progress func(done, all int)) (*Result, error) {
	truth := TruthOf(c.Seed)
	var plan *scalers.Plan
	if c.Policy == offline {
		p, err := c.best(ctx, truth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name(), err)
		}
		plan = &p
	}
	m := newMeter(c)
	m.progress = progress
	return c.once(m, truth, plan)
}

// once runs the cell one time.
func (c *Cell) once(m *meter, t Truth, plan *scalers.Plan) (*Result, error) {
	e := sim.Elastic{
		Prefill: t.Prefill, Decode: t.Decode, Initial: c.initial(t), Most: most, Startup: c.Startup, Failed: failed,
		SLO: c.SLO, FCFS: c.Service == FCFS, Shared: c.Work.Shared, Seed: c.Seed, Arrivals: m.arrivals(t), Until: c.Work.Until,
		Answered: m.answered, Ticked: m.ticked, Enough: m.enough,
	}
	if err := c.employ(&e, t, plan); err != nil {
		return nil, err
	}
	m.decided = decisions(e.Scaler)
	elapsed, err := sim.RunElastic(e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name(), err)
	}
	return m.result(elapsed), nil
}

// initial is the fleet at the beginning: what the first minute keeps busy, half as much again. It is the same for all
// scalers but those that know what they want from the start.
func (c *Cell) initial(t Truth) map[decide.Role]int {
	next := c.Work.Requests(c.Seed)
	var w demand
	for r, ok := next(); ok && r.At < time.Minute; r, ok = next() {
		w.add(&r, t.Model(), c.SLO)
	}
	n := func(seconds float64) int { return min(most, max(1, int(math.Ceil(1.5*seconds/60)))) }
	return map[decide.Role]int{decide.Prefill: n(w.prefill), decide.Decode: n(w.decode)}
}

// demand is busy replica-seconds.
type demand struct{ prefill, decode float64 }

// add counts what a request keeps busy, by the model: its prefill, and its share of a decode replica that holds as many
// sequences of its context as keep the objective.
func (d *demand) add(r *Request, m decide.Model, slo sim.SLO) {
	d.prefill += m.Overhead + float64(r.Prompt-r.Cached)/m.Rate
	context := float64(r.Prompt) + float64(r.Output)/2
	itl := .93 * slo.ITL.Seconds() * 1000
	n := min((itl-m.Step)/(m.Sequence+m.Kilo*context/1000), .92*float64(m.KVTokens)/context, float64(m.MaxSeqs))
	d.decode += float64(r.Output) * itl / 1000 / max(1, n)
}
