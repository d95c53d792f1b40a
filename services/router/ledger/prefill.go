package ledger

import (
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// PrefillRefused is PrefillFailed without blame: the prefill engine is well, but will not compute this prompt now.
func (r *Reservation) PrefillRefused(now time.Time) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.computeHere(now)
}

// computeHere takes the prompt from the prefill engine: Engine computes it itself, as one that was sent to it now. The
// lock is held.
func (r *Reservation) computeHere(now time.Time) {
	leg := r.Prefill
	if leg == nil || leg.ended || r.ended {
		return
	}
	leg.release(now, false, false)
	if r.first { // it does not stream, and was taken to decode by now
		r.row.pass(now)
	}
	r.row.leave(r)
	r.first, r.remote, r.sent = false, false, now
	r.enter()
}

// PrefillAgain chooses another engine to compute the prompt for Engine, after PrefillFailed or PrefillRefused; w must
// exclude whoever failed. It returns nil, and changes nothing, where none is left or where w.Split would rather have
// Engine compute it. The reservation's Prefill is then the new one.
func (r *Reservation) PrefillAgain(v *fleet.View, w *Wish, now time.Time) *Decision {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	p.decode.rows = append(p.decode.rows[:0], r.row)
	if r.ended || r.first || r.remote || !p.helpers(w, now) {
		return nil
	}
	r.row.leave(r) // else the rule would take it for another's work
	defer r.enter()
	p.hear(w.Score.GetEngines())
	p.observe(w, &p.decode, now)
	own := &p.decode.seen.Candidates[0]
	own.Matched, own.Placed = r.Cached, 0 // its own placement is no cached prompt
	p.observe(w, &p.prefill, now)
	pair := w.Split(&p.state, &p.decode.seen, &p.prefill.seen, p.random.Uint64(), p.scratch())
	if pair.Prefill.Index < 0 {
		return nil
	}
	r.hand(p.take(w, &p.prefill, pair.Prefill.Index, now))
	r.sent = now
	return p.decided(&pair)
}

// hand gives the prompt to leg, on the engine that is to compute it. r is not on its row yet. The lock is held.
func (r *Reservation) hand(leg *Reservation) {
	leg.streams = true // its one token comes with its last
	r.Prefill, r.remote, r.alone, r.unmixed = leg, true, false, false
	leg.enter()
}

// LongToGo says whether the prompt should be done later from now than its engine takes for a prompt of so many tokens alone.
func (r *Reservation) LongToGo(tokens int, now time.Time) bool {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	s := &r.pool.state
	return r.predicted-now.Sub(r.sent).Seconds() > s.Rate(r.Engine.ID).Prefill*s.PrefillSeconds(0, tokens)
}
