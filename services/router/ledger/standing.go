package ledger

import "time"

// gapsTold is how many gaps a stream keeps to itself before the engine's row counts them: streams share the row.
const gapsTold = 16

// Standing is what one router reports of an engine.
type Standing struct {
	Load
	Lent     int           // prompts that it computed and that their decode engine has not fetched yet, as far as is known
	Draining bool          // this router chooses it no more
	Gaps     int64         // between streamed tokens, since the router met the engine
	GapTime  time.Duration // their sum
}

// Standings tells how every engine stands, by its id: those of the last view, and those that left it but still answer.
// What it says of draining and of requests is of one moment, so a draining engine without any will get none.
func (p *Pool) Standings(now time.Time) map[string]Standing {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]Standing, len(p.all))
	for id, w := range p.all {
		w.settle(now)
		all[id] = Standing{Load: w.load(), Lent: w.lent, Draining: w.draining, Gaps: w.gaps.Load(), GapTime: time.Duration(w.gapTime.Load())}
	}
	return all
}

// tellGaps has the row count the gaps that it does not know yet. It takes no lock.
func (r *Reservation) tellGaps() {
	passed := int64(r.decoding * float64(time.Second))
	r.row.gaps.Add(int64(r.gaps) - r.gapsTold)
	r.row.gapTime.Add(passed - r.gapTimeTold)
	r.gapsTold, r.gapTimeTold = int64(r.gaps), passed
}

// lend notes that an engine keeps the prompt until the decode engine has fetched it. The lock is held.
func (r *Reservation) lend(lender *row) {
	r.lender = lender
	lender.lent++
}

// fetched undoes lend. The lock is held.
func (r *Reservation) fetched() {
	if r.lender != nil {
		r.lender.lent--
		r.lender = nil
	}
}

// PrefillTook is how long the prompt took to compute on this reservation's engine, from when it was sent to its first
// byte; known only where no other prompt waited there before it and the answer streamed.
func (r *Reservation) PrefillTook() (took time.Duration, known bool) { return r.took, r.took > 0 }
