package router

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/placements"
	"github.com/warmpath/warmpath/services/router/policy"
)

// bytesPerToken estimates prompts whose tokens nobody knows.
const bytesPerToken = 4

// pool is what this router knows of one pool: the ledger, the placements, what it has learned. One short lock guards
// it all, so that a choice and its booking are one step and simultaneous requests see one another.
type pool struct {
	id    string
	epoch time.Time

	mu      sync.Mutex
	view    *fleet.View // that rows were last matched with
	rows    []*row      // in the view, sorted by engine id
	all     map[string]*row
	numbers uint32
	keyed   placements.Keyed
	pieces  placements.Pieces
	sharing placements.Sharing
	policy  policy.Name
	state   policy.State
	random  *rand.Rand
	turn    uint64
	total   totals

	// Scratch of pick.
	chosen  []*row
	matched []int // of chosen: blocks that the index says they hold
	seen    policy.Observation
	costs   []float64
}

func newPool(id string, name policy.Name, seed uint64, epoch time.Time) *pool {
	return &pool{id: id, epoch: epoch, all: make(map[string]*row), policy: name, random: rand.New(rand.NewPCG(seed, uint64(len(id))))}
}

// wish is what a request asks of a pool.
type wish struct {
	score   *scorerv1.ScoreResponse // nil when nobody knows the tokens
	engines map[string]*scorerv1.EngineScore
	chain   []uint64 // chained hashes of the prompt's bytes
	bytes   int      // length of the prompt's text
	streams bool
	model   string
	without map[string]bool // engine ids that have failed it
}

// newWish prepares what reserve needs outside the lock.
func newWish(q *request, score *scorerv1.ScoreResponse, chain []uint64) *wish {
	text := q.text()
	if text == nil {
		text = q.body.raw
	}
	w := &wish{score: score, chain: chain, bytes: len(text), streams: q.stream, model: q.model, without: map[string]bool{}}
	if score != nil {
		w.engines = make(map[string]*scorerv1.EngineScore, len(score.Engines))
		for _, e := range score.Engines {
			w.engines[e.Engine] = e
		}
	}
	return w
}

// sync brings the rows up to a view. The lock is held. An engine that left keeps its row while requests are under way.
func (p *pool) sync(v *fleet.View) {
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
			p.numbers++
			w = &row{number: p.numbers}
			p.all[e.ID] = w
		} else if w.engine.Generation != e.Generation {
			// A new life has an empty cache; what was sent to the old one is forgotten with its number.
			p.numbers++
			w.number, w.mapped, w.evicted = p.numbers, 0, false
		}
		w.engine, w.listed, w.draining = e, true, v.Draining[e.ID]
		p.rows = append(p.rows, w)
	}
	for _, w := range p.all {
		p.forget(w)
	}
}

// forget drops the row of an engine that is gone and has nothing under way. The lock is held.
func (p *pool) forget(w *row) {
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

// usable collects the rows that may be chosen: engines for decode or both before those for prefill alone, healthy ones
// before ejected ones. With nothing better the ejected are tried: a wrong ejection must not stop a pool.
func (p *pool) usable(q *wish, now time.Time) []*row {
	for _, ejected := range []bool{false, true} {
		for _, prefill := range []bool{false, true} {
			p.chosen = p.chosen[:0]
			for _, w := range p.rows {
				if !q.without[w.engine.ID] && w.serves(q.model) &&
					(w.engine.Role == fleet.Prefill) == prefill && w.health.usable(now) != ejected {
					p.chosen = append(p.chosen, w)
				}
			}
			if len(p.chosen) > 0 {
				return p.chosen
			}
		}
	}
	return nil
}

// ready says whether the pool has an engine for a model at all.
func (p *pool) ready(v *fleet.View, model string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	for _, w := range p.rows {
		if w.serves(model) {
			return true
		}
	}
	return false
}

// reserve chooses an engine and books the request there in one step; nil when no engine is left.
func (p *pool) reserve(v *fleet.View, q *wish, now time.Time) (*reservation, *decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	p.keyed.Expire(now)
	rows := p.usable(q, now)
	if len(rows) == 0 {
		return nil, nil
	}
	p.observe(q, rows, now)
	choice := policy.Pick(p.policy, &p.state, &p.seen, p.random.Uint64(), p.costs)
	if choice.Costs != nil {
		p.costs = choice.Costs
	}
	p.turn++
	r := p.book(q, rows[choice.Index], choice.Index, now)
	return r, p.decided(rows, choice)
}

// book enters the request in the ledger and the placements. The lock is held.
func (p *pool) book(q *wish, w *row, i int, now time.Time) *reservation {
	prompt := p.seen.PromptTokens
	cached := max(0, min(p.seen.Candidates[i].Matched, prompt-1))
	r := &reservation{
		pool: p, row: w, engine: w.engine, prompt: prompt, cached: cached, uncached: prompt - cached,
		seconds: p.state.PrefillSeconds(cached, prompt), sent: now, streams: q.streams,
	}
	c, rate := &p.seen.Candidates[i], p.state.Rate(w.engine.ID)
	r.alone = q.streams && c.Waiting == 0
	r.steps = p.state.StepsBefore(c, r.uncached) * rate.Decode * p.state.StepSeconds(c.Active-c.Waiting, c.DecodeContext)
	w.add(r)
	r.expected = now.Add(time.Duration(w.waitSeconds * rate.Prefill * float64(time.Second)))
	keys := q.score.GetKeys()
	r.placed = p.keyed.Place(w.number, keys[min(p.matched[i], len(keys)):])
	p.pieces.Sent(w.number, q.chain, now)
	heads, _ := q.heads()
	r.heads = p.sharing.Enter(heads)
	w.health.chosen()
	return r
}

// observe fills p.seen with what the policy may know. The lock is held.
func (p *pool) observe(q *wish, rows []*row, now time.Time) {
	o := &p.seen
	p.matched = p.matched[:0]
	*o = policy.Observation{Now: now.Sub(p.epoch).Seconds(), Turn: p.turn, Candidates: o.Candidates[:0]}
	o.PromptTokens = q.bytes / bytesPerToken
	if len(q.chain) > 0 {
		o.FirstKey = q.chain[0]
	}
	keys := q.score.GetKeys()
	if q.score != nil {
		o.PromptTokens, o.BlockSize = int(q.score.PromptTokens), int(q.score.BlockSize)
		if len(keys) > 0 {
			o.FirstKey = keys[0]
		}
	}
	best := 0
	for _, w := range rows {
		c := w.candidate(p.epoch, now)
		e := q.engines[w.engine.ID]
		held := int(max(e.GetGpu(), e.GetAny()))
		if e != nil {
			w.mapped, w.evicted = int(e.Visible), e.Evicted
			c.Mapped, c.Evicted = w.mapped, w.evicted
		}
		if q.score != nil {
			c.Matched = p.keyed.Depth(w.number, keys, min(held, len(keys))) * o.BlockSize
		}
		if !q.answeredFor(&w.engine) {
			c.Matched = max(c.Matched, p.pieces.Depth(w.number, q.chain, now)*placements.PieceBytes/bytesPerToken)
		}
		best = max(best, c.Matched)
		o.Candidates, p.matched = append(o.Candidates, c), append(p.matched, held)
	}
	heads, tokens := q.heads()
	o.Sharing = p.sharing.Count(heads, best/tokens/2)
}

// answeredFor says whether the index speaks for an engine: its prompt was scored, its bucket answered for, and its
// events are heard. Else what the router sent there lately is the better guess.
func (q *wish) answeredFor(e *fleet.Engine) bool {
	if q.score == nil || e.State == fleet.Blind || e.State == fleet.Silent {
		return false
	}
	return q.engines[e.ID] != nil || !q.score.GetPartial()
}

// heads are the chained hashes that tell how far two prompts agree, and how many tokens one stands for.
func (q *wish) heads() (chain []uint64, tokens int) {
	if keys := q.score.GetKeys(); len(keys) > 0 {
		return keys, int(q.score.BlockSize)
	}
	return q.chain, placements.PieceBytes / bytesPerToken
}

// failed counts an engine's failure and says whether it is now ejected.
func (p *pool) failed(w *row, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.health.bad(now)
}
