package decide

import "time"

// longestGap is how long routers may be silent for what came meanwhile to be taken as a rate.
const longestGap = 30.

// counts are the routers' totals at the last tick that took them.
type counts struct {
	At       time.Time `json:"at"`
	Heard    time.Time `json:"heard"`
	Arrivals float64   `json:"arrivals"`
	Prompt   float64   `json:"prompt"`
	Uncached float64   `json:"uncached"`
	Output   float64   `json:"output"`
	Finished float64   `json:"finished"`
	Tokens   float64   `json:"tokens"`
}

// rates are what came a second since the tick before.
type rates struct {
	seconds  float64
	arrivals float64
	prompt   float64
	uncached float64 // as dispatched, and by how much the queue grew
	output   float64
	finished float64
}

// take sets where to count from, and gives the rates since it was set last. False: there is nothing to compare with,
// as totals fell or were not known for long.
func (c *counts) take(r *Routers, now time.Time) (rates, bool) {
	before := *c
	*c = counts{now, r.Heard, r.Arrivals, r.Prompt, r.Uncached, r.Output, r.Finished, float64(r.Tokens)}
	seconds := now.Sub(before.At).Seconds()
	if before.At.IsZero() || seconds <= 0 || seconds > longestGap || r.Arrivals < before.Arrivals ||
		r.Prompt < before.Prompt || r.Uncached < before.Uncached || r.Output < before.Output || r.Finished < before.Finished {
		return rates{}, false
	}
	// Reports come each second: those of one tick are of a second more or less than the tick, and know it.
	if heard := r.Heard.Sub(before.Heard).Seconds(); heard >= seconds/2 && heard <= 1.5*seconds {
		seconds = heard
	}
	return rates{
		seconds: seconds, arrivals: (r.Arrivals - before.Arrivals) / seconds, prompt: (r.Prompt - before.Prompt) / seconds,
		uncached: (r.Uncached - before.Uncached + c.Tokens - before.Tokens) / seconds,
		output:   (r.Output - before.Output) / seconds, finished: (r.Finished - before.Finished) / seconds,
	}, true
}

// lengths are the mean prompt and output of requests that ended: the latest two minutes', or two hundred.
type lengths struct {
	N      float64 `json:"n"`
	Prompt float64 `json:"prompt"` // sums
	Output float64 `json:"output"`
}

func (l *lengths) add(n, prompt, output float64) {
	l.N, l.Prompt, l.Output = l.N+n, l.Prompt+prompt, l.Output+output
}

func (l *lengths) decay(ticks float64) {
	if l.N > 200 {
		rest := max(1-.04*ticks, .5)
		l.N, l.Prompt, l.Output = l.N*rest, l.Prompt*rest, l.Output*rest
	}
}

// means are known after twenty requests.
func (l *lengths) means() (prompt, output float64, known bool) {
	if l.N < 20 {
		return 0, 0, false
	}
	return l.Prompt / l.N, l.Output / l.N, true
}

// sizes are the uncached tokens of the latest prompts.
type sizes struct {
	Ring [512]uint32 `json:"ring"`
	N    int         `json:"n"` // seen, up to twice the ring
}

func (s *sizes) put(tokens int) {
	s.Ring[s.N%len(s.Ring)] = uint32(min(max(tokens, 0), 1<<31))
	if s.N++; s.N >= 2*len(s.Ring) {
		s.N -= len(s.Ring)
	}
}
