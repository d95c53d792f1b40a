package ledger

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/placements"
	"github.com/warmpath/warmpath/services/router/policy"
)

const coldDecay = 30 * time.Second // in which the memory of cold work falls to 1/e

// row is this router's ledger of one engine. The pool's lock guards it, but for what is atomic.
type row struct {
	pool     *Pool
	number   uint32 // names the engine in placements; from 1, never used twice
	recent   *placements.Recent
	engine   fleet.Engine
	listed   bool // the fleet's view has it
	draining bool

	active        int
	waiting       []*Reservation // without a first byte, computed here, in the order sent
	coming        coming         // without a first byte, computed elsewhere
	waitContext   int            // of both
	uncached      int
	waitSeconds   float64
	decodeContext int
	streamed      atomic.Int64 // tokens streamed by the decoding ones
	gaps          atomic.Int64 // between tokens, and
	gapTime       atomic.Int64 // their sum in nanoseconds
	lent          int          // prompts that decode engines are to fetch
	lastFirst     time.Time
	done          work
	prefilled     float64 // of done, the seconds of this router's own prompts
	told          []told  // by peers that have used it
	dirty         bool    // changed since the last Tell

	coldWork float64
	coldAt   time.Time

	score   *scorerv1.EngineScore // of the request that is looked at now; nil where nobody answered
	mapped  int                   // as the last score said
	evicted bool

	scrape  Scrape
	scraped time.Time

	under   map[*Reservation]struct{} // way, all of them
	sign    time.Time                 // of life, the last; or when it was sent something after it had nothing
	counted int64                     // streamed, at the last Watch

	health health
}

// work is what an engine has done for the requests of this router and its peers, so that the difference of two moments tells what was
// done between them.
type work struct {
	prefill float64   // seconds of the prompts whose first byte is out, as the profile says
	steps   float64   // decode steps that the profile says could have run in the time that passed
	at      time.Time // up to when steps count
}

// pass lets time pass, in which the batch was as it is.
func (w *row) pass(now time.Time) {
	if passed := now.Sub(w.done.at).Seconds(); passed > 0 {
		peers := w.beside()
		if decoding := w.active - w.unanswered() + peers.decoding; decoding > 0 {
			context := w.decodeContext + int(w.streamed.Load()) + peers.context
			w.done.steps += passed / w.pool.state.StepSeconds(decoding, context)
		}
		w.done.at = now
	}
}

// Load is what one router has under way on one engine; the zero value is an idle engine.
type Load struct {
	Active        int     // requests not finished
	Waiting       int     // of these, without a first byte
	WaitContext   int     // prompt tokens of the waiting
	Uncached      int     // of these, to be computed there: not cached when they were sent
	WaitSeconds   float64 // prefill seconds of the waiting, as the profile says
	DecodeContext int     // prompt tokens of those that decode
	Streamed      int     // tokens streamed so far by requests not finished
}

func (w *row) load() Load {
	return Load{
		Active: w.active, Waiting: w.unanswered(), WaitContext: w.waitContext, Uncached: w.uncached, WaitSeconds: w.waitSeconds,
		DecodeContext: w.decodeContext, Streamed: int(w.streamed.Load()),
	}
}

// sync brings the rows up to a view. The lock is held. An engine that left keeps its row while requests are under way.
func (p *Pool) sync(v *fleet.View) {
	if p.view == v {
		return
	}
	p.view, p.rows = v, nil
	for _, w := range p.all {
		w.listed = false
	}
	for _, e := range v.InPool(p.id) {
		w := p.all[e.ID]
		if w == nil {
			w = &row{pool: p, under: make(map[*Reservation]struct{})}
			p.all[e.ID] = w
		}
		if w.number == 0 || w.engine.Generation != e.Generation {
			p.numbers++
			w.begin(p.numbers)
		}
		if w.recent == nil || w.engine.Blocks != e.Blocks {
			w.recent = placements.NewRecent(e.Blocks)
		}
		w.engine, w.listed, w.draining = e, true, v.Draining[e.ID]
		p.rows = append(p.rows, w)
	}
	for _, w := range p.all {
		p.forget(w)
	}
}

// forget drops the row of an engine that is gone and has nothing under way. The lock is held.
func (p *Pool) forget(w *row) {
	if !w.listed && w.active == 0 && p.all[w.engine.ID] == w {
		delete(p.all, w.engine.ID)
		p.state.Forget(w.engine.ID)
	}
}

// serves says whether the engine takes requests for a model.
func (w *row) serves(model string) bool {
	e := &w.engine
	if w.draining || e.State == fleet.Gone {
		return false
	}
	for i := range e.Models {
		if e.Models[i].ID == model {
			return true
		}
	}
	return len(e.Models) == 0
}

// unanswered is how many requests have no first byte yet.
func (w *row) unanswered() int { return len(w.waiting) + len(w.coming.requests) }

// add books a reservation. The pool's lock is held.
func (w *row) add(r *Reservation) {
	w.touch()
	if w.active == 0 {
		w.alive(r.sent)
	}
	w.under[r] = struct{}{}
	w.active++
	w.waitContext += r.Prompt
	if r.remote {
		w.coming.add(r)
	} else {
		w.waiting = append(w.waiting, r)
		w.uncached += r.Uncached
		w.waitSeconds += r.seconds
	}
	w.coldWork = w.cold(r.sent) + float64(r.Uncached)
	w.coldAt = r.sent
}

// cold is the uncached work sent to the engine, decayed to now.
func (w *row) cold(now time.Time) float64 {
	if w.coldAt.IsZero() {
		return 0
	}
	return w.coldWork * math.Exp(-now.Sub(w.coldAt).Seconds()/coldDecay.Seconds())
}

// leave takes a reservation off the row. The pool's lock is held.
func (w *row) leave(r *Reservation) {
	w.touch()
	delete(w.under, r)
	w.active--
	if r.first {
		w.decodeContext -= r.Prompt
	} else {
		w.stopWaiting(r)
	}
}

// stopWaiting takes a reservation out of the queue. The pool's lock is held.
func (w *row) stopWaiting(r *Reservation) {
	w.touch()
	w.waitContext -= r.Prompt
	if r.remote {
		w.coming.remove(r)
		return
	}
	i := slices.Index(w.waiting, r)
	w.waiting = slices.Delete(w.waiting, i, i+1)
	w.uncached -= r.Uncached
	w.waitSeconds -= r.seconds
	if len(w.waiting) == 0 {
		w.waitSeconds = 0 // no rounding error outlives the queue
	}
}

// decode moves a reservation from waiting to decoding. The pool's lock is held.
func (w *row) decode(r *Reservation, now time.Time) {
	w.pass(now)
	w.stopWaiting(r)
	r.first = true
	w.decodeContext += r.Prompt
	r.began = w.done
	if !r.remote { // else it says nothing of the prompts that wait here
		w.done.prefill += r.seconds
		w.prefilled += r.seconds
		r.began = w.done
		w.lastFirst = now
	}
}

// settle lets answers that do not stream decode once their prefill should be done: their first byte is their last.
func (w *row) settle(now time.Time) {
	for _, queue := range []*[]*Reservation{&w.waiting, &w.coming.requests} {
		for i := 0; i < len(*queue); {
			if r := (*queue)[i]; !r.streams && now.After(r.expected) {
				w.decode(r, r.expected)
				continue
			}
			i++
		}
	}
}

// candidate is the row as the policy sees it: peers' requests are there too. The pool's lock is held.
func (w *row) candidate(epoch, now time.Time) policy.Candidate {
	w.settle(now)
	scrape := w.lately(now)
	c := policy.Candidate{
		Engine:        w.engine.ID,
		Active:        w.active,
		Waiting:       w.unanswered(),
		DecodeContext: w.decodeContext + int(w.streamed.Load()),
		WaitContext:   w.waitContext,
		Uncached:      w.uncached,
		Coming:        w.coming.tokens,
		Both:          w.engine.Role == fleet.Both,
		WaitSeconds:   w.waitSeconds,
		Blocks:        w.engine.Blocks,
		Mapped:        w.mapped,
		Usage:         scrape.Usage,
		Queued:        scrape.Queued,
		Evicted:       w.evicted,
		ColdWork:      w.cold(now),
	}
	if len(w.waiting) > 0 {
		c.OldestSent = w.waiting[0].sent.Sub(epoch).Seconds()
		c.OldestSeconds = w.waiting[0].seconds
	}
	if !w.lastFirst.IsZero() {
		c.LastFirst = w.lastFirst.Sub(epoch).Seconds()
	}
	w.join(&c, epoch, now)
	return c
}
