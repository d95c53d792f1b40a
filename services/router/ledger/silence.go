package ledger

import (
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// An engine that hangs refuses nothing: it takes requests and says no more. What it is expected to say tells.
const (
	leastPatience = 5 * time.Second  // without a sign, before an engine is suspected, beside
	patience      = 4                // times what it is predicted to take
	stuckAfter    = 30 * time.Second // more: it is taken to hang, though it answers probes
	probeEvery    = 2 * time.Second
	usualOutput   = 300 // tokens, where answers have not been seen to be longer

	// IdleLimit is how long an engine may say nothing at all to its streams before they are ended.
	IdleLimit = 60 * time.Second
)

// Scrape is what an engine's own metrics say. Zero values are not known.
type Scrape struct {
	Usage  float64 // share of its blocks that running requests use, 0 to 1
	Queued int     // requests that wait in it
	Tokens float64 // prompt and output tokens since it started; where they change, it is at work
}

// scrapeAge is how long a scrape stands. What is older says nothing: neither that the engine is busy nor that it is idle.
const scrapeAge = 3 * time.Second

// Scraped tells what an engine's own metrics say now. It stands for 3 s, or until the engine's next life. An engine that
// no view has shown yet is ignored.
func (p *Pool) Scraped(engine string, s Scrape, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.all[engine]; w != nil {
		if s.Tokens != w.scrape.Tokens && !w.scraped.IsZero() {
			w.alive(now)
		}
		w.scrape, w.scraped = s, now
	}
}

// lately is the last scrape, if it still stands.
func (w *row) lately(now time.Time) Scrape {
	if w.scraped.IsZero() || now.Sub(w.scraped) > scrapeAge {
		return Scrape{}
	}
	return w.scrape
}

// alive notes a sign of life. The pool's lock is held.
func (w *row) alive(now time.Time) {
	if now.After(w.sign) {
		w.sign = now
	}
	w.health.suspect = false
}

// OnStall lets stop be called, once and from any goroutine, if the engine is found to hang while the request is there:
// before its first byte as soon as that is known, so that another engine may be asked, and in any case when the engine
// has said nothing for IdleLimit.
func (r *Reservation) OnStall(stop func()) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.stop = stop
}

// Watch looks for engines of this router's requests that have fallen silent, and is to be called several times a
// second. It returns those that should be probed now, which are answered by Probed, and what to call for requests that
// have waited too long. An engine that is suspected gets no new requests until it gives a sign of life.
func (p *Pool) Watch(now time.Time) (probe []fleet.Engine, stop []func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.all {
		if n := w.streamed.Load(); n != w.counted {
			w.counted = n
			w.alive(now)
		}
		silent := w.silent(now)
		if silent > w.patience() {
			w.health.suspect = true
		}
		if silent > IdleLimit {
			stop = append(stop, w.stops(true)...)
		} else if silent > w.patience()+stuckAfter {
			w.health.eject(now)
			stop = append(stop, w.stops(false)...)
		}
		if h := &w.health; h.suspect && !h.asked && now.Sub(h.probed) >= probeEvery {
			h.asked, h.probed = true, now
			probe = append(probe, w.engine)
		}
	}
	return probe, stop
}

// Probed tells how an engine that Watch named has answered: whether its HTTP server says that it lives. One that does
// not is ejected, and those of its requests that have no first byte are to be stopped. One that does gets requests
// again, unless streams wait for it longer than its prediction allows.
func (p *Pool) Probed(engine string, lives bool, now time.Time) (ejected bool, stop []func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.all[engine]
	if w == nil {
		return false, nil
	}
	h := &w.health
	h.asked = false
	switch {
	case !lives && h.suspect:
		return h.eject(now), w.stops(false)
	case lives && !w.owes():
		w.alive(now)
	}
	return false, nil
}

// silent is how long the engine has said nothing while it should have; 0 where nothing is expected of it.
func (w *row) silent(now time.Time) time.Duration {
	if len(w.under) == 0 || w.active == len(w.coming.requests) {
		return 0
	}
	return now.Sub(w.sign)
}

// patience is how long the engine may be silent: by what it has to compute before it can say something.
func (w *row) patience() time.Duration {
	s := &w.pool.state
	rate := s.Rate(w.engine.ID)
	seconds := 0.
	if len(w.waiting) > 0 {
		seconds = rate.Prefill * w.waiting[0].seconds
	}
	if !w.owes() { // whole answers alone: they come at the end
		seconds += rate.Decode * s.StepSeconds(w.active, w.decodeContext) * max(s.Output, usualOutput)
	}
	return leastPatience + duration(patience*seconds)
}

// owes says whether a stream is under way there, which should show progress.
func (w *row) owes() bool {
	for r := range w.under {
		if r.streams && (r.first || !r.remote) {
			return true
		}
	}
	return false
}

// stops takes what is to be called for the requests under way, or for those of them without a first byte.
func (w *row) stops(all bool) (stop []func()) {
	for r := range w.under {
		if r.stop != nil && (all || !r.heard) {
			stop = append(stop, r.stop)
			r.stop = nil
		}
	}
	return stop
}
