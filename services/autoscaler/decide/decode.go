package decide

import "math"

const (
	sigma      = .93 // of the objective that a step is planned for
	kvShare    = .92 // of the cache that may be full
	crowded    = .3  // share of engines over the objective that is congestion
	flowSlack  = 1.25
	spare      = 1.3 // standard deviations of the occupancy
	nearlyFull = .85 // of their occupancy, above which what waits at the routers waits for decode
)

// decodes is how many sequences a replica holds at the objective.
type decodes struct {
	model     *itl
	slo       float64 // sigma x objective, ms
	kv        float64 // tokens of a cache that may be full
	sequences float64 // in a batch
	doubt     float64 // posterior standard deviations that are taken off (FCFS)
}

// at is the model's ITL at n sequences with so many tokens of context each.
func (d *decodes) at(n, context float64) float64 {
	x := vector{1, n, n * context / 1000, 0}
	ms := d.model.at(x)
	if d.doubt > 0 {
		ms += d.doubt * d.model.doubt(x)
	}
	return ms
}

// fit is N*: sequences of so many tokens that a replica holds at the objective; at least one, where even that is late.
func (d *decodes) fit(context float64) float64 {
	slope := d.model.mean[1] + d.model.mean[2]*context/1000
	n := (d.slo - d.model.mean[0]) / max(slope, 1e-9)
	if d.doubt > 0 && n > 0 { // one step of Newton's: the doubt changes slowly
		n -= (d.at(n, context) - d.slo) / max(slope, 1e-9)
	}
	n = min(n, d.sequences)
	if context > 0 {
		n = min(n, d.kv/context)
	}
	return max(n, 1)
}

// occupancy is what decodes now, as if every engine stood at the objective: what is crowded runs slower and so holds
// sequences for longer, which is no demand.
type occupancy struct {
	sequences float64 // at the objective
	context   float64 // mean tokens of a sequence; 0 is not known
	waiting   float64 // sequences that wait for a place in decode
	engines   float64 // that have sequences
	late      float64 // of these, over the objective
}

// occupied sums over the engines that decode.
func (d *decodes) occupied(engines []Engine, fresh func(*Engine) bool) occupancy {
	var o occupancy
	n, tokens := 0., 0.
	for i := range engines {
		e := &engines[i]
		if e.Role == Prefill {
			continue
		}
		if e.Role == Decode && fresh(e) {
			o.waiting += min(e.Scrape.Waiting, 1e6)
		}
		if e.Decoding <= 0 {
			continue
		}
		sequences, context := min(float64(e.Decoding), 1e6), min(max(float64(e.Context), 0), 1e10)
		ms := d.at(sequences, context/sequences)
		o.sequences += sequences * d.slo / ms
		o.engines++
		if ms > d.slo/sigma {
			o.late++
		}
		n, tokens = n+sequences, tokens+context
	}
	if n > 0 {
		o.context = tokens / n
	}
	return o
}

// replicas is how many hold such an occupancy, with room for its chance variation.
func (d *decodes) replicas(held, fit, ca2 float64) int {
	n := math.Ceil(held + spare*math.Sqrt(held*min(ca2, 3)/fit) - .05)
	return int(min(max(n, 1), most))
}

// violations is the share of sequences beyond what n replicas hold: those over the mean in an overload, else those that
// its variation brings, taken as normal.
func (d *decodes) violations(n int, busy, fit, ca2 float64) float64 {
	if busy <= 0 {
		return 0
	}
	over := max(1-float64(n)/busy, 0)
	sd := math.Sqrt(busy * min(ca2, 3) / fit)
	return min(max(over, .5*math.Erfc((float64(n)-busy)/sd/math.Sqrt2)), 1)
}
