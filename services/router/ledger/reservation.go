package ledger

import (
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/internal/placements"
	"github.com/warmpath/warmpath/services/router/policy"
)

const (
	leastGaps     = 8   // fewer say little of an engine's rates
	leastUncached = 512 // tokens; a shorter prefill says little
)

// Reservation is one request's place in the ledger, from the choice to its end. It belongs to the request's goroutine;
// its methods lock the pool where they need to. Every one must be released. The exported fields are for reading.
type Reservation struct {
	Engine   fleet.Engine // as it was at the choice
	Prompt   int          // tokens, an estimate where nobody knows them
	Cached   int          // of these, believed to be on the engine
	Uncached int          // the rest; at least one of a prompt that has any
	// Prefill is the place of the prompt on the engine that computes it for this one; nil where this one does. Who
	// holds the reservation tells of it by PrefillDone or PrefillFailed only; Release ends both.
	Prefill *Reservation

	pool        *Pool
	row         *row
	seconds     float64
	sent        time.Time
	expected    time.Time // when an answer that does not stream is taken to decode
	streams     bool
	alone       bool // nobody waited there when it was chosen: its first byte teaches the engine's rates
	unmixed     bool // the same, of a prompt of any length: its first byte tells how long it took
	took        time.Duration
	step        float64   // seconds of a step there, at the choice
	steps       float64   // seconds of its TTFT that are other steps, as the profile says
	remote      bool      // its KV comes from a prefill engine
	predicted   float64   // seconds to its first byte, at the choice
	computed    time.Time // when that was done
	quiet       bool      // nothing else held it up then
	gaps        int       // between tokens, seen so far
	decoding    float64   // their sum in seconds
	gapsTold    int64     // of gaps, those that the row counts
	gapTimeTold int64     // of decoding, in nanoseconds
	lender      *row      // keeps the computed prompt until it is fetched; nil where nobody does
	began       work      // of the row, when this one's prefill was done
	streamed    int64
	first       bool
	heard       bool // its first byte has come, and is not only thought to have
	ended       bool
	stop        func() // of OnStall
	placed      *placements.Placement
	heads       []uint64
}

// FirstByte says that the engine has begun to answer: the request decodes from now on. A prefill engine of which nobody
// has told is done as well; nobody saw when, so nothing is learned.
func (r *Reservation) FirstByte(now time.Time) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.firstByte(now)
}

// firstByte is FirstByte under the lock.
func (r *Reservation) firstByte(now time.Time) {
	r.heard = true
	r.row.alive(now)
	r.fetched()
	if !r.first {
		if r.unmixed && r.streams {
			r.took = now.Sub(r.sent)
		}
		if r.alone && r.streams {
			r.pool.state.Took(r.Engine.ID, r.steps, r.seconds, now.Sub(r.sent).Seconds())
		}
		if r.remote {
			r.received(now)
		}
		r.row.decode(r, now)
	}
	if leg := r.Prefill; leg != nil && !leg.ended {
		leg.alone, leg.unmixed = false, false
		leg.firstByte(now)
		leg.release(now, true, true)
	}
	r.pool.keyed.FirstByte(r.placed, now)
	r.row.health.answers()
}

// enter books the reservation on its engine and predicts when it decodes. The lock is held.
func (r *Reservation) enter() {
	s := &r.pool.state
	r.row.add(r)
	wait := (r.row.waitSeconds + r.row.beside().seconds) * s.Rate(r.Engine.ID).Prefill
	if r.remote {
		p := r.Prefill
		wait = (p.row.waitSeconds+p.row.beside().seconds)*s.Rate(p.Engine.ID).Prefill + s.TransferSeconds(r.Uncached) + policy.StepsAround*r.step
	}
	r.expected = r.sent.Add(time.Duration(wait * float64(time.Second)))
}

// Token counts n streamed tokens. gap is the time since the token before, where one came alone; 0 is not known. It
// takes no lock.
func (r *Reservation) Token(n int, gap time.Duration) {
	r.streamed += int64(n)
	r.row.streamed.Add(int64(n))
	if gap > 0 {
		r.gaps++
		r.decoding += gap.Seconds()
		if r.gaps%gapsTold == 0 {
			r.tellGaps()
		}
	}
}

// learn teaches the engine's rates from the time between the first and the last token, in which decode steps of this
// one and prefills of others took turns. The lock is held, and the row is at the present.
func (r *Reservation) learn() {
	done := &r.row.done
	steps := done.steps - r.began.steps
	if r.gaps < leastGaps || steps <= 0 {
		return
	}
	step := r.decoding / steps
	r.pool.state.Took(r.Engine.ID, float64(r.gaps)*step, done.prefill-r.began.prefill, r.decoding)
}

// Failed counts a failure of the engine and says whether the engine is now ejected: passed over for a while.
func (r *Reservation) Failed(now time.Time) (ejected bool) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	return r.row.health.bad(now)
}

// Release ends the reservation at now; only the first call counts. answered says whether the prompt was computed, whole
// whether the answer came to its end.
func (r *Reservation) Release(now time.Time, answered, whole bool) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.release(now, answered, whole)
}

// release is Release under the lock.
func (r *Reservation) release(now time.Time, answered, whole bool) {
	if r.ended {
		return
	}
	r.ended = true
	r.tellGaps()
	r.fetched()
	if r.Prefill != nil {
		r.Prefill.release(now, false, false)
	}
	if r.first {
		r.row.pass(now)
		r.learn()
	}
	r.pool.sharing.Leave(r.heads)
	r.row.leave(r)
	r.row.streamed.Add(-r.streamed)
	if !answered {
		r.pool.keyed.Drop(r.placed)
	}
	if r.row.health.probing = false; whole {
		r.row.alive(now)
		r.row.health.good()
	}
	r.pool.forget(r.row)
}
