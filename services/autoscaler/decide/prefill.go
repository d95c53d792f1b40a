package decide

import "math"

const (
	most       = 10_000 // replicas: more than anybody has
	transfer   = .012   // seconds from the end of a prefill to the decode engine
	fullest    = .95    // of its time that a prefill replica may be busy
	hopeless   = .7     // the same where no prompt can be served in time
	everyFouth = 4      // of the latest prompts counts: 128
)

// waits says how long prompts wait for prefill replicas: an M/M/n queue (Erlang C), its wait stretched by what
// arrivals and prefills vary more (Allen and Cunneen).
type waits struct {
	seconds    [512 / everyFouth]float64 // of the prompts that can be served in time
	n          int
	mean       float64 // seconds of a prefill, all prompts
	stretch    float64 // ca2 + cs2
	budget     float64 // seconds from arrival to the end of the prefill
	infeasible float64 // share of prompts that no number of replicas serves in time
}

// waitsFor looks at the latest prompts. ttft and itl are objectives in seconds.
func waitsFor(s *sizes, l line, usual, ttft, itl, ca2 float64) waits {
	w := waits{budget: ttft - transfer - itl}
	sum, squares, all := 0., 0., 0
	take := func(seconds float64) {
		all++
		sum, squares = sum+seconds, squares+seconds*seconds
		if seconds <= w.budget {
			w.seconds[w.n] = seconds
			w.n++
		}
	}
	seen := min(s.N, len(s.Ring))
	for i := 0; i < seen; i += everyFouth {
		take(l.seconds(float64(s.Ring[i]) / 1000))
	}
	if all == 0 {
		take(usual)
	}
	w.mean = max(sum/float64(all), 1e-6)
	w.stretch = ca2 + max(squares/float64(all)/(w.mean*w.mean)-1, 0)
	w.infeasible = 1 - float64(w.n)/float64(all)
	return w
}

// erlangC is the probability that an arrival waits before n servers with so many busy on average, n > load.
func erlangC(n int, load float64) float64 {
	b := 1.
	for k := 1; k <= n; k++ {
		b *= load / (float64(k) + load*b)
	}
	return ofErlangB(b, n, load)
}

func ofErlangB(b float64, n int, load float64) float64 {
	rho := load / float64(n)
	return b / (1 - rho*(1-b))
}

// late is the share of prompts that wait longer than they can, of those that can be served in time, when an arrival
// waits with probability c.
func (w *waits) late(n int, load, c float64) float64 {
	if w.n == 0 {
		return 0
	}
	rate := 2 * (float64(n) - load) / (w.mean * w.stretch)
	sum := 0.
	for _, s := range w.seconds[:w.n] {
		sum += math.Exp(-(w.budget - s) * rate)
	}
	return c * sum / float64(w.n)
}

// least is the least number of replicas that serves so much work with at most eps late.
func (w *waits) least(load, eps float64) int {
	full := fullest
	if w.n == 0 {
		full = hopeless
	}
	b := 1.
	for n := 1; n < most; n++ {
		b *= load / (float64(n) + load*b)
		if load >= full*float64(n) {
			continue
		}
		if w.late(n, load, ofErlangB(b, n, load)) <= eps {
			return n
		}
	}
	return most
}

// violations is the share of prompts that miss their objective with n replicas. Beyond what n can do, the rest is late.
func (w *waits) violations(n int, load float64) float64 {
	if n <= 0 {
		return min(1, load*1e9)
	}
	within := min(load, fullest*float64(n))
	served := 1.
	if load > within {
		served = within / load
	}
	return 1 - served*(1-w.late(n, within, erlangC(n, within)))*(1-w.infeasible)
}
