package ledger

import (
	"math"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/placements"
	"github.com/warmpath/warmpath/services/router/policy"
)

// bytesPerToken estimates prompts whose tokens nobody knows.
const bytesPerToken = 4

// usable collects in p.decode the rows that may be chosen: engines for decode or both before those for prefill alone, and
// healthy ones before ejected ones. With nothing better the ejected are tried: a wrong ejection must not stop a pool.
func (p *Pool) usable(q *Wish, now time.Time) {
	f := &p.decode
	for _, ejected := range []bool{false, true} {
		for _, prefill := range []bool{false, true} {
			f.rows = f.rows[:0]
			for _, w := range p.rows {
				if !q.Without[w.engine.ID] && w.serves(q.Model) &&
					(w.engine.Role == fleet.Prefill) == prefill && w.health.usable(now) != ejected {
					f.rows = append(f.rows, w)
				}
			}
			if len(f.rows) > 0 {
				return
			}
		}
	}
}

// observe fills f with what the policy may know of its rows. The lock is held.
func (p *Pool) observe(q *Wish, f *field, now time.Time) {
	o := &f.seen
	f.matched = f.matched[:0]
	*o = policy.Observation{Now: now.Sub(p.epoch).Seconds(), Turn: p.turn, Candidates: o.Candidates[:0]}
	o.PromptTokens = q.Bytes / bytesPerToken
	if len(q.Chain) > 0 {
		o.FirstKey = q.Chain[0]
	}
	keys := q.Score.GetKeys()
	if q.Score != nil {
		o.PromptTokens, o.BlockSize = int(q.Score.PromptTokens), int(q.Score.BlockSize)
		if len(keys) > 0 {
			o.FirstKey = keys[0]
		}
	}
	best := 0
	for _, w := range f.rows {
		held := int(max(w.score.GetGpu(), w.score.GetAny()))
		if e := w.score; e != nil {
			w.mapped, w.evicted = int(e.Visible), e.Evicted
		}
		c := w.candidate(p.epoch, now)
		if q.Score != nil {
			known := min(held, len(keys))
			depth := p.keyed.Depth(w.number, keys, known)
			left := w.remains(keys, depth, o.BlockSize)
			c.Matched, c.Placed, c.Leaving = left*o.BlockSize, max(0, left-known)*o.BlockSize, (depth-left)*o.BlockSize
		}
		if !q.answeredFor(w) {
			c.Matched = max(c.Matched, p.pieces.Depth(w.number, q.Chain, now)*placements.PieceBytes/bytesPerToken)
			c.Guessed = true
		}
		best = max(best, c.Matched)
		o.Candidates, f.matched = append(o.Candidates, c), append(f.matched, held)
	}
	heads, tokens := q.heads()
	// Peers do not say what their requests are; those of this router are taken for a sample of all.
	o.Sharing = int(math.Round(f.crowd() * float64(p.sharing.Count(heads, best/tokens/2))))
}

// hear lays each engine's score beside its row: one look in a map for each engine, and no map for each request.
func (p *Pool) hear(scores []*scorerv1.EngineScore) {
	for _, w := range p.rows {
		w.score = nil
	}
	for _, e := range scores {
		if w := p.all[e.Engine]; w != nil {
			w.score = e
		}
	}
}

// answeredFor says whether the index speaks for an engine: its prompt was scored, its bucket answered for, and its
// events are heard. Else what the router sent there lately is the better guess.
func (q *Wish) answeredFor(w *row) bool {
	if q.Score == nil || w.engine.State == fleet.Blind || w.engine.State == fleet.Silent {
		return false
	}
	return w.score != nil || !q.Score.Partial
}

// heads are the chained hashes that tell how far two prompts agree, and how many tokens one stands for.
func (q *Wish) heads() (chain []uint64, tokens int) {
	if keys := q.Score.GetKeys(); len(keys) > 0 {
		return keys, int(q.Score.BlockSize)
	}
	return q.Chain, placements.PieceBytes / bytesPerToken
}
