package ledger

import (
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/policy"
)

// Splitter chooses who decodes and who computes the prompt for it: policy.Split with a policy's name, or another rule.
// There are candidates for both. last is scratch: costs may be appended to its [:0]. Else it is bound as a Picker is.
type Splitter func(s *policy.State, decode, prefill *policy.Observation, random uint64, last policy.Pair) policy.Pair

// helpers collects in p.prefill the healthy engines that may compute the prompt for one of p.decode, and says whether
// there are any: those for prefill and those for both. A pool whose engines are all for both, or all for prefill, or
// for decode, has none: each engine there does all. The lock is held.
func (p *Pool) helpers(q *Wish, now time.Time) bool {
	f := &p.prefill
	f.rows = f.rows[:0]
	if q.Split == nil {
		return false
	}
	apart := false
	for _, w := range p.rows {
		apart = apart || w.engine.Role != fleet.Both
		if w.engine.Role != fleet.Decode && !q.Without[w.engine.ID] && w.serves(q.Model) && w.health.usable(now) {
			f.rows = append(f.rows, w)
		}
	}
	return apart && len(f.rows) > 0 && p.decode.rows[0].engine.Role != fleet.Prefill
}

// scratch is room for the costs of the next pair.
func (p *Pool) scratch() policy.Pair {
	return policy.Pair{Decode: policy.Choice{Costs: p.decode.costs}, Prefill: policy.Choice{Costs: p.prefill.costs}}
}

// PrefillDone says that the prefill engine has answered: the prompt is computed, and its KV goes to Engine from now on.
func (r *Reservation) PrefillDone(now time.Time) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	if leg := r.Prefill; leg != nil && !leg.ended {
		r.computed, r.quiet = now, r.row.quiet(now)
		leg.firstByte(now)
		leg.release(now, true, true)
		if !r.heard && !r.ended {
			r.lend(leg.row)
		}
	}
}

// PrefillFailed says that the prefill engine will not answer, and whether that ejected it: Engine computes the prompt
// itself, as one that was sent to it now.
func (r *Reservation) PrefillFailed(now time.Time) (ejected bool) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	leg := r.Prefill
	if leg == nil || leg.ended || r.ended {
		return false
	}
	ejected = leg.row.health.bad(now)
	r.computeHere(now)
	return ejected
}

// received teaches how long KV takes from engine to engine: the time from the prefill engine's answer to the first
// token less the steps around it. Where prompts are computed beside, or blocks are short, it would teach those. The lock
// is held.
func (r *Reservation) received(now time.Time) {
	if r.streams && r.quiet && r.row.quiet(now) {
		r.pool.state.Transferred(now.Sub(r.computed).Seconds()-policy.StepsAround*r.step, r.Uncached)
	}
}

// quiet says that nothing but decode steps holds up a prompt that comes to the engine.
func (w *row) quiet(now time.Time) bool {
	return len(w.waiting)+w.beside().waiting == 0 && w.lately(now).Usage < fullUsage
}

// fullUsage is the share of blocks in use from which prompts may have to wait for some.
const fullUsage = 0.9

// coming is the KV that prefill engines compute for an engine and that is not there yet.
type coming struct {
	requests []*Reservation
	tokens   int // to be fetched
}

func (c *coming) add(r *Reservation) {
	c.requests = append(c.requests, r)
	c.tokens += r.Uncached
}

func (c *coming) remove(r *Reservation) {
	i := slices.Index(c.requests, r)
	c.requests = slices.Delete(c.requests, i, i+1)
	c.tokens -= r.Uncached
}
