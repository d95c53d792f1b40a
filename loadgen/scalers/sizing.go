package scalers

import (
	"math"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// erlangC is the probability that a request waits where load busy servers are needed and n are there.
func erlangC(n int, load float64) float64 {
	if load <= 0 {
		return 0
	}
	if load >= float64(n) {
		return 1
	}
	b := 1.
	for i := 1; i <= n; i++ {
		b = load * b / (float64(i) + load*b)
	}
	rho := load / float64(n)
	return b / (1 - rho + rho*b)
}

// seconds is what a prefill takes, alone.
func seconds(m decide.Model, uncached float64) float64 { return m.Overhead + uncached/m.Rate }

// sequences is how many a decode replica bears at the objective, each with context tokens: N* of the policy page 2.
func sequences(m decide.Model, context, itl float64) float64 {
	context = max(1, context)
	n := min((.93*itl*1000-m.Step)/(m.Sequence+m.Kilo*context/1000), .92*float64(m.KVTokens)/context, float64(m.MaxSeqs))
	return max(1, n)
}

// prefills is the least number of replicas that bear load, in busy ones, so that no more than eps of requests of those
// sizes (seconds alone) wait beyond budget; n_P of the policy page 2. burst is ca2. Sizes above the budget are left out.
func prefills(load float64, sizes []float64, budget, burst, eps float64) int {
	var feasible []float64
	sum, squares := 0., 0.
	for _, s := range sizes {
		sum += s
		squares += s * s
		if s <= budget {
			feasible = append(feasible, s)
		}
	}
	if len(feasible) == 0 {
		return max(1, ceil(load/.7))
	}
	mean := sum / float64(len(sizes))
	spread := squares/float64(len(sizes))/(mean*mean) - 1
	for n := max(1, int(load/.95)+1); ; n++ {
		c, late := erlangC(n, load), 0.
		slack := 2 * (float64(n) - load) / (mean * (burst + spread))
		for _, s := range feasible {
			late += c * math.Exp(-(budget-s)*slack)
		}
		if late <= eps*float64(len(feasible)) {
			return n
		}
	}
}

// decodes is the number of replicas for an occupancy, in replicas at the objective; n_D of the policy page 2.
func decodes(occupancy, burst, sequences float64) int {
	return max(1, ceil(occupancy+1.3*math.Sqrt(occupancy*min(burst, 3)/sequences)-.05))
}

// gap is the time between two tokens of a replica with that many sequences and that context in all, in seconds.
func gap(m decide.Model, sequences, context float64) float64 {
	return (m.Step + m.Sequence*sequences + m.Kilo*context/1000) / 1000
}
