package decide

import (
	"math"
	"time"
)

const (
	memoryOfFlow = .01 // of the ratio of what is occupied to what arrivals say
	unheldEps    = .1  // share of prompts that may be late; of routers in order of arrival
	fcfsEps      = .01
	fcfsDoubt    = .7
)

// load is what a tick comes to for all roles, in busy replicas where no unit is said.
type load struct {
	known    bool // demand was ever seen
	taken    bool // and now
	rates    rates
	burst    float64
	model    Model
	line     line
	itl      itl
	decodes  decodes
	waits    waits
	occupied occupancy
	fit      float64 // N*: sequences of a replica
	observed float64
	flow     float64
	work     float64 // the greater of the two, as far as it is demand
	blend    float64 // prefill work of engines for both, as occupancy
	need     [3]float64
	doubts   [3]float64 // confidence by role
}

// measure folds an observation in: it learns, and brings levels, forecasts and peaks up to date.
func (s *memory) measure(o *Observation, v *view, p *Policy, now time.Time) load {
	l := load{model: p.Prior}
	if s.Full == 0 {
		s.Full, s.Ratio = kvShare, 1
	}
	at := s.Counts.At
	if v.routers {
		l.rates, l.taken = s.Counts.take(&o.Routers, now)
	}
	l.itl = s.Steps.fit(&p.Prior)
	if v.routers {
		s.ended(o.Routers.Ended, l.rates, &p.Prior)
		seconds := 0.
		if l.taken {
			seconds = now.Sub(at).Seconds()
		}
		s.engines(o, now, seconds, s.shared(o, l.rates.uncached), &l.itl)
	}
	l.line, l.itl = s.Prefills.fit(&p.Prior), s.Steps.fit(&p.Prior)
	l.model.Overhead, l.model.Rate = l.line.overhead, 1000/l.line.kilo
	l.model.Step, l.model.Sequence, l.model.Kilo, l.model.Mixed = l.itl.mean[0], l.itl.mean[1], l.itl.mean[2], l.itl.mean[3]
	kv := capacity(o.Engines, &p.Prior)
	l.model.KVTokens = int(min(kv, math.MaxInt32))
	l.decodes = decodes{model: &l.itl, slo: sigma * 1000 * p.ITL.Seconds(), kv: s.Full * kv, sequences: float64(p.Prior.MaxSeqs)}
	if p.FCFS {
		l.decodes.doubt = fcfsDoubt
	}
	if l.taken {
		s.Seen += l.rates.seconds
		s.Burst.put(l.rates.arrivals * tick)
	}
	l.burst = s.Burst.ratio()
	ticks := l.rates.seconds / tick
	if l.taken {
		s.Arrivals = s.Arrivals.next(l.rates.arrivals, ticks, true)
		work := max(min(l.rates.arrivals*l.line.overhead+l.rates.uncached/l.model.Rate, most), -most)
		s.Work = s.Work.next(work, ticks, true)
		s.Works.put(work)
	}
	l.known = s.Work.Set
	usual := l.line.overhead
	if s.Arrivals.Level > 0 {
		usual = s.Work.Level / s.Arrivals.Level
	}
	l.waits = waitsFor(&s.Sizes, l.line, usual, p.TTFT.Seconds(), p.ITL.Seconds(), l.burst)
	s.occupy(o, &l, now)
	s.forecast(&l, p)
	l.doubts = s.confidence(&l)
	return l
}

// shared is the prefill of an engine for both, in thousand tokens/s.
func (s *memory) shared(o *Observation, uncached float64) float64 {
	n := 0.
	for i := range o.Engines {
		if o.Engines[i].Role == Both && o.Engines[i].Serving {
			n++
		}
	}
	return min(max(uncached/1000/max(n, 1), 0), 1e6)
}

// occupy says how many replicas decode fills: as it is, and as arrivals foretell.
func (s *memory) occupy(o *Observation, l *load, now time.Time) {
	d := &l.decodes
	l.occupied = d.occupied(o.Engines, func(e *Engine) bool { return e.Scrape.fresh(now) })
	prompt, output, lengths := s.Lengths.means()
	context := l.occupied.context
	if context == 0 {
		context = prompt + output/2
	}
	l.fit = d.fit(context)
	l.observed = l.occupied.sequences / l.fit
	if ready := s.serving(o, Decode); ready > 0 && l.observed >= nearlyFull*ready {
		l.occupied.waiting += float64(min(o.Routers.Queued, 1e6)) // decode is what they wait for
	}
	l.observed += l.occupied.waiting / l.fit
	if lengths {
		l.flow = max(s.Arrivals.Level, 0) * output * d.slo / 1000 / d.fit(prompt+output/2)
	}
	if !l.taken {
		return
	}
	y := max(l.observed, l.flow)
	if l.congested() || float64(o.Routers.Queued) > 1+s.Arrivals.Level { // a wave follows what waits for a second
		if lengths {
			y = min(y, max(max(1, s.Ratio)*l.flow, .5))
		}
	} else if l.flow > .2 && s.queue(o) < 1+2*s.serving(o, Prefill) {
		s.Ratio += memoryOfFlow * (min(max(l.observed/l.flow, .5), 2) - s.Ratio)
	}
	l.observed = min(l.observed, most)
	s.Occupied = s.Occupied.next(min(y, most), l.rates.seconds/tick, false)
	l.work = min(y, most)
}

func (l *load) congested() bool {
	return l.occupied.waiting > 0 || l.occupied.late > crowded*l.occupied.engines
}

// serving counts the engines that do a role's work.
func (s *memory) serving(o *Observation, role Role) float64 {
	n := 0.
	for i := range o.Engines {
		if e := &o.Engines[i]; e.Serving && !e.Draining && (e.Role == role || e.Role == Both) {
			n++
		}
	}
	return n
}

// queue counts the requests that wait for a prefill, or have one.
func (s *memory) queue(o *Observation) float64 {
	n := float64(min(o.Routers.Queued, 1e6))
	for i := range o.Engines {
		if e := &o.Engines[i]; e.Role == Prefill {
			n += min(max(float64(e.Inflight), 0), 1e6)
		}
	}
	return n
}

// forecast sets what the roles need at the time that a replica ordered now is there, and keeps it as a peak. Decode grows
// as arrivals do, never by its own trend: that of a backlog which is worked off.
func (s *memory) forecast(l *load, p *Policy) {
	var horizon [3]float64
	for i := range horizon {
		horizon[i] = (s.Tracks[i].Startups.seconds(p.Startup) + 10) / tick
	}
	if !l.taken {
		for i := range l.need {
			l.need[i] = s.Tracks[i].Need
		}
		return
	}
	both := horizon[2]
	prefill := func(h float64) float64 {
		w := s.Work.ahead(h)
		return min(max(w, min(s.Works.mean(), 3*max(s.Work.Level, 0)+.5)), most)
	}
	decode := func(h float64) float64 {
		growth := 1.
		if s.Arrivals.Level > 0 {
			growth = min(max(s.Arrivals.ahead(h)/s.Arrivals.Level, 1), 2)
		}
		return min(max(l.work, s.Occupied.Level, growth*max(s.Occupied.Level, l.flow)), most)
	}
	// Prefill in an engine for both lengthens its steps: a + (b + c k) n/N + d u/N <= sigma SLO.
	l.blend = prefill(both) * l.model.Rate / 1000 * l.model.Mixed / max(l.decodes.slo-l.model.Step, 1)
	l.need = [3]float64{prefill(horizon[0]), decode(horizon[1]), min(decode(both)+l.blend, most)}
	for i := range l.need {
		t := &s.Tracks[i]
		t.Need = l.need[i]
		t.Peaks.put(s.Seen, t.Need)
		t.Forecasts.set(s.Seen, t.Need)
	}
}

// confidence says for each role how much of its model is learned.
func (s *memory) confidence(l *load) [3]float64 {
	p := s.Prefills.confidence()
	n := max(l.fit/2, 1)
	d := l.itl.confidence(vector{1, n, n * max(l.occupied.context, 500) / 1000, 0})
	return [3]float64{p, d, min(p, d)}
}
