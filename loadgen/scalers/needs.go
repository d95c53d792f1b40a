package scalers

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// slot is the grain in which true demand is looked at: one tick of our own rule.
const slot = 5 * time.Second

// needs is what the true arrivals need, slot by slot, by the formulas of our own rule and with the true model. Nothing
// is uncertain in it, so there is no headroom.
type needs struct {
	prefill, decode []int     // replicas
	busy, occupied  []float64 // busy replicas, not rounded up and without a margin
}

// foresee works out needs. Cost: about 10 us for each slot.
func foresee(t *Truth, p decide.Policy) needs {
	m := filledModel(t.Model)
	if len(t.Arrivals) == 0 {
		return needs{prefill: []int{1}, decode: []int{1}, busy: []float64{0}, occupied: []float64{0}}
	}
	w := newWork(t.Arrivals, m, p.ITL.Seconds())
	n := len(w.busy)
	s := needs{prefill: make([]int, n), decode: make([]int, n), busy: smooth(w.busy, 2), occupied: smooth(w.occupied, 2)}
	eps := .1
	if p.FCFS {
		eps = .01
	}
	for i := range n {
		near := w.near(t.Arrivals, i)
		burst, sizes, bears := w.burst(i), make([]float64, 0, len(near)), 0.
		for _, a := range near {
			sizes = append(sizes, seconds(m, float64(a.Uncached)))
			bears += sequences(m, float64(a.Prompt+a.Output/2), p.ITL.Seconds()) / float64(len(near))
		}
		s.prefill[i] = prefills(s.busy[i], sizes, p.TTFT.Seconds()-.042, burst, eps)
		s.decode[i] = decodes(s.occupied[i], burst, max(1, bears))
	}
	return s
}

// of is what a role needs.
func (s *needs) of(role decide.Role) []int {
	switch role {
	case decide.Prefill:
		return s.prefill
	case decide.Decode:
		return s.decode
	}
	both := make([]int, len(s.prefill))
	for i := range both {
		both[i] = s.prefill[i] + s.decode[i]
	}
	return both
}

// work is the arrivals' work in the slots where it falls.
type work struct {
	busy     []float64 // replicas that prefill
	occupied []float64 // replicas at the decode objective
	first    []int     // index of the first arrival at or after the slot's begin
}

func newWork(arrivals []Arrival, m decide.Model, itl float64) work {
	n := int(arrivals[len(arrivals)-1].At/slot) + 1
	w := work{busy: make([]float64, n), occupied: make([]float64, n), first: make([]int, n+1)}
	next := 0
	for i, a := range arrivals {
		for ; next <= int(a.At/slot); next++ {
			w.first[next] = i
		}
		w.busy[next-1] += seconds(m, float64(a.Uncached)) / slot.Seconds()
		at := a.At.Seconds() + seconds(m, float64(a.Uncached))
		w.occupy(at, at+float64(a.Output)*.93*itl, 1/sequences(m, float64(a.Prompt+a.Output/2), itl))
	}
	w.first[n] = len(arrivals)
	return w
}

// occupy adds a share of a replica from one time to another.
func (w *work) occupy(from, to, share float64) {
	for i := int(from / slot.Seconds()); i < len(w.occupied); i++ {
		begin := float64(i) * slot.Seconds()
		if begin >= to {
			return
		}
		w.occupied[i] += share * (min(to, begin+slot.Seconds()) - max(from, begin)) / slot.Seconds()
	}
}

// near are at most 128 of the arrivals within a minute of a slot, evenly taken; at least one.
func (w *work) near(arrivals []Arrival, i int) []Arrival {
	const reach, most = 12, 128
	from, to := w.first[max(0, i-reach)], w.first[min(len(w.first)-1, i+reach)]
	if from == to {
		return arrivals[min(from, len(arrivals)-1):][:1]
	}
	step := max(1, (to-from)/most)
	var some []Arrival
	for ; from < to; from += step {
		some = append(some, arrivals[from])
	}
	return some
}

// burst is ca2 of the policy page: how much more successive counts differ than Poisson's, over two minutes, 1 to 6.
func (w *work) burst(i int) float64 {
	const reach = 12
	squares, count := 0., 0.
	for j := max(1, i-reach); j < min(len(w.busy), i+reach); j++ {
		a, b := float64(w.first[j]-w.first[j-1]), float64(w.first[j+1]-w.first[j])
		squares += (a - b) * (a - b)
		count += (a + b) / 2
	}
	if count == 0 {
		return 1
	}
	return min(6, max(1, squares/(2*count)))
}

// smooth is the mean of each value and its neighbours, reach of them on each side.
func smooth(values []float64, reach int) []float64 {
	smoothed := make([]float64, len(values))
	for i := range values {
		near := values[max(0, i-reach):min(len(values), i+reach+1)]
		for _, v := range near {
			smoothed[i] += v / float64(len(near))
		}
	}
	return smoothed
}
