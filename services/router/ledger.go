package router

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/internal/placements"
	"github.com/warmpath/warmpath/services/router/policy"
)

const (
	coldDecay = 30 * time.Second // in which the memory of cold work falls to 1/e
	keepGaps  = 64               // of one request
	leastGaps = 8                // fewer say little
)

// row is this router's ledger of one engine. The pool's lock guards it, but for streamed.
type row struct {
	number   uint32 // names the engine in placements; never used twice
	engine   fleet.Engine
	listed   bool // the fleet's view has it
	draining bool

	active        int
	waiting       []*reservation // without a first byte, in the order sent
	waitContext   int
	uncached      int
	waitSeconds   float64
	decodeContext int
	streamed      atomic.Int64 // tokens streamed by the decoding ones
	lastFirst     time.Time

	coldWork float64
	coldAt   time.Time

	mapped  int // as the last score said
	evicted bool

	health health
}

// reservation is one request's place in the ledger, from the choice to its end. Its methods lock the pool.
type reservation struct {
	pool     *pool
	row      *row
	engine   fleet.Engine // as it was at the choice
	prompt   int
	uncached int
	cached   int
	seconds  float64
	sent     time.Time
	expected time.Time // when an answer that does not stream is taken to decode
	streams  bool
	alone    bool      // nobody waited there when it was chosen: its first byte teaches the prefill rate
	steps    float64   // seconds of its TTFT that are other steps
	gaps     []float64 // latest gaps between tokens, at most keepGaps; the request's goroutine has them
	gapsSeen int
	streamed int64
	first    bool
	ended    bool
	placed   *placements.Placement
	heads    []uint64
}

// add books a reservation. The pool's lock is held.
func (w *row) add(r *reservation) {
	w.active++
	w.waiting = append(w.waiting, r)
	w.waitContext += r.prompt
	w.uncached += r.uncached
	w.waitSeconds += r.seconds
	w.coldWork = w.cold(r.sent) + float64(r.uncached)
	w.coldAt = r.sent
}

// cold is the uncached work sent to the engine, decayed to now.
func (w *row) cold(now time.Time) float64 {
	if w.coldAt.IsZero() {
		return 0
	}
	return w.coldWork * math.Exp(-now.Sub(w.coldAt).Seconds()/coldDecay.Seconds())
}

// stopWaiting takes a reservation out of the queue. The pool's lock is held.
func (w *row) stopWaiting(r *reservation) {
	i := slices.Index(w.waiting, r)
	w.waiting = slices.Delete(w.waiting, i, i+1)
	w.waitContext -= r.prompt
	w.uncached -= r.uncached
	w.waitSeconds -= r.seconds
	if len(w.waiting) == 0 {
		w.waitSeconds = 0 // no rounding error outlives the queue
	}
}

// decode moves a reservation from waiting to decoding. The pool's lock is held.
func (w *row) decode(r *reservation, now time.Time) {
	w.stopWaiting(r)
	r.first = true
	w.decodeContext += r.prompt
	w.lastFirst = now
}

// settle lets answers that do not stream decode once their prefill should be done: their first byte is their last.
func (w *row) settle(now time.Time) {
	for i := 0; i < len(w.waiting); {
		if r := w.waiting[i]; !r.streams && now.After(r.expected) {
			w.decode(r, r.expected)
			continue
		}
		i++
	}
}

// candidate is the row as the policy sees it. The pool's lock is held.
func (w *row) candidate(epoch, now time.Time) policy.Candidate {
	w.settle(now)
	c := policy.Candidate{
		Engine:        w.engine.ID,
		Active:        w.active,
		Waiting:       len(w.waiting),
		DecodeContext: w.decodeContext + int(w.streamed.Load()),
		WaitContext:   w.waitContext,
		Uncached:      w.uncached,
		WaitSeconds:   w.waitSeconds,
		Blocks:        w.engine.Blocks,
		Mapped:        w.mapped,
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
	return c
}

// firstByte says that the engine has begun to answer.
func (r *reservation) firstByte(now time.Time) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	if !r.first {
		if r.alone {
			r.pool.state.FirstByte(r.engine.ID, now.Sub(r.sent).Seconds(), r.steps, r.seconds, r.uncached)
		}
		r.row.decode(r, now)
	}
	r.pool.keyed.FirstByte(r.placed, now)
	r.row.health.answers()
}

// token counts streamed tokens, the first of them gap after the one before; no lock.
func (r *reservation) token(n int, gap time.Duration) {
	r.streamed += int64(n)
	r.row.streamed.Add(int64(n))
	if gap <= 0 {
		return
	}
	if len(r.gaps) < keepGaps {
		r.gaps = append(r.gaps, gap.Seconds())
	} else {
		r.gaps[r.gapsSeen%keepGaps] = gap.Seconds()
	}
	r.gapsSeen++
}

// learn teaches the engine's decode rate from the median gap, which prefills of others hardly touch. The lock is held.
func (r *reservation) learn() {
	if w := r.row; len(r.gaps) >= leastGaps {
		model := r.pool.state.StepSeconds(w.active-len(w.waiting), w.decodeContext+int(w.streamed.Load()))
		r.pool.state.Gap(r.engine.ID, policy.Median(r.gaps), model)
	}
}

// release ends the reservation; only the first call counts. answered says whether the prompt was computed, whole
// whether the answer came to its end.
func (r *reservation) release(answered, whole bool) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	r.learn()
	r.pool.sharing.Leave(r.heads)
	r.row.active--
	if r.first {
		r.row.decodeContext -= r.prompt
	} else {
		r.row.stopWaiting(r)
	}
	r.row.streamed.Add(-r.streamed)
	if !answered {
		r.pool.keyed.Drop(r.placed)
	}
	if r.row.health.probing = false; whole {
		r.row.health.good()
	}
	r.pool.forget(r.row)
}
