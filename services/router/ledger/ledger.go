// Package ledger is what one router knows of one pool's engines: the requests under way, where prompts were just
// placed, what has been learned of each engine's speed, and whose answers failed. Reserve chooses an engine with a
// policy and books the request there in one step under one short lock, so that simultaneous requests see one another.
//
// The router and the simulator run this same code. It has no I/O, no goroutines and no clock: time and randomness are
// arguments, so equal calls in equal order make equal choices. It knows records and scores, but no HTTP, no metrics
// and no log; what a decision looks like to people is package router's business.
package ledger

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/placements"
	"github.com/warmpath/warmpath/services/router/policy"
)

// Picker chooses among the candidates of o, which are never none: policy.Pick with a policy's name, or another rule.
// It may keep nothing of its arguments, appends its costs, if it has any, to costs[:0], and runs under the pool's lock.
type Picker func(s *policy.State, o *policy.Observation, random uint64, costs []float64) policy.Choice

// Pool is the ledger of one pool. All methods are safe for concurrent use; each locks the pool for microseconds. Memory
// is bounded by the engines in the view, the requests under way and the bounds of package placements.
type Pool struct {
	id    string
	epoch time.Time
	pick  Picker

	mu      sync.Mutex
	view    *fleet.View // that rows were last matched with
	rows    []*row      // in the view, sorted by engine id
	all     map[string]*row
	numbers uint32
	keyed   placements.Keyed
	pieces  placements.Pieces
	sharing placements.Sharing
	state   policy.State
	random  *rand.Rand
	turn    uint64

	peers   []*peer
	changed func() // of OnChange; may be nil
	dirty   bool   // some row is

	// Scratch of Reserve: whom it chooses among, to decode and to compute the prompt.
	decode, prefill field
}

// field is what a choice is made among.
type field struct {
	rows    []*row
	matched []int // blocks that the index says each holds
	seen    policy.Observation
	costs   []float64
}

// NewPool starts the ledger of the pool with that id, empty. Equal seeds and calls give equal choices. The policy sees
// times as seconds since epoch, which must not lie after the first call's now.
func NewPool(id string, pick Picker, seed uint64, epoch time.Time) *Pool {
	return &Pool{id: id, epoch: epoch, pick: pick, all: make(map[string]*row), random: rand.New(rand.NewPCG(seed, uint64(len(id))))}
}

// Wish is what a request asks of a pool. The ledger changes nothing in it.
type Wish struct {
	Score   *scorerv1.ScoreResponse // nil when nobody knows the tokens; Keys are kept until the placement is over, the rest is not read later
	Chain   []uint64                // chained hashes of the prompt's pieces of 512 bytes (placements.Chain), the approximation
	Bytes   int                     // length of the prompt's text: without a score, 4 bytes are taken for a token
	Streams bool                    // the answer is a stream, so that its first byte tells when its prefill is done
	Model   string                  // as the client named it
	Without map[string]bool         // engine ids that have failed it; may be nil
	Gate    Gate                    // engines that are full by it are passed over while others are not
	Split   Splitter                // allows another engine to compute the prompt; nil where one engine is to do all
}

// Reserve chooses an engine of v and books the request there in one step; nil when no engine is left that serves the
// model. now must not lie before that of earlier calls by more than calls that run at once may differ. Cost: linear in
// the pool's engines and the prompt's blocks.
func (p *Pool) Reserve(v *fleet.View, w *Wish, now time.Time) (*Reservation, *Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	p.keyed.Expire(now)
	p.forgetSilent(now)
	if p.usable(w, now); len(p.decode.rows) == 0 {
		return nil, nil
	}
	p.withRoom(w, now)
	p.hear(w.Score.GetEngines())
	p.observe(w, &p.decode, now)
	var pair policy.Pair
	if p.helpers(w, now) {
		p.observe(w, &p.prefill, now)
		pair = w.Split(&p.state, &p.decode.seen, &p.prefill.seen, p.random.Uint64(), p.scratch())
	} else {
		pair.Decode = p.pick(&p.state, &p.decode.seen, p.random.Uint64(), p.decode.costs)
		pair.Prefill.Index = -1
	}
	p.turn++
	return p.book(w, &pair, now), p.decided(&pair)
}

// book enters the request in the ledger. The lock is held.
func (p *Pool) book(w *Wish, pair *policy.Pair, now time.Time) *Reservation {
	r := p.take(w, &p.decode, pair.Decode.Index, now)
	if pair.Prefill.Index >= 0 {
		r.hand(p.take(w, &p.prefill, pair.Prefill.Index, now))
	}
	r.enter()
	heads, _ := w.heads()
	r.heads = p.sharing.Enter(heads)
	return r
}

// take makes a place on an engine of f, and notes in the placements that the prompt goes there.
func (p *Pool) take(w *Wish, f *field, i int, now time.Time) *Reservation {
	at, prompt := f.rows[i], f.seen.PromptTokens
	c, rate := &f.seen.Candidates[i], p.state.Rate(at.engine.ID)
	cached := max(0, min(c.Matched, prompt-1))
	r := &Reservation{
		Engine: at.engine, Prompt: prompt, Cached: cached, Uncached: prompt - cached,
		pool: p, row: at, seconds: p.state.PrefillSeconds(cached, prompt), sent: now, streams: w.Streams,
	}
	r.unmixed = len(at.waiting)+at.beside().waiting == 0 && c.Usage < fullUsage
	r.alone = r.unmixed && r.Uncached >= leastUncached
	step := p.state.StepSeconds(c.Active-c.Waiting, c.DecodeContext)
	r.step, r.steps = rate.Decode*step, p.state.StepsBefore(c, r.Uncached)*step
	r.predicted = at.waitLeft(p, now) + rate.Prefill*r.seconds + rate.Decode*r.steps
	keys := w.Score.GetKeys()
	r.placed = p.keyed.Place(at.number, keys[min(f.matched[i], cached/max(1, f.seen.BlockSize), len(keys)):])
	at.recent.Sent(keys)
	p.pieces.Sent(at.number, w.Chain, now)
	at.health.chosen()
	return r
}

// Ready says whether the pool has an engine in v that serves a model at all.
func (p *Pool) Ready(v *fleet.View, model string) bool {
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

// Finished teaches the mean output length: a request has ended well with so many output tokens.
func (p *Pool) Finished(output int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Finished(output)
}

// Sweep brings the ledger up to a view and ends placements that are over, as each Reserve does: for a pool without
// traffic.
func (p *Pool) Sweep(v *fleet.View, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	p.keyed.Expire(now)
}

// Size is how much a pool remembers beside its rows.
type Size struct {
	Keys  int // block keys that count as cached because their prompt was just placed
	Heads int // of the prompts under way; 0 without any
}

// Size counts what is remembered.
func (p *Pool) Size() Size {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Size{Keys: p.keyed.Size(), Heads: p.sharing.Size()}
}

// Loads tells what is under way, by engine id: the engines of the view, and those that left it but still answer.
func (p *Pool) Loads() map[string]Load {
	p.mu.Lock()
	defer p.mu.Unlock()
	loads := make(map[string]Load, len(p.all))
	for id, w := range p.all {
		loads[id] = w.load()
	}
	return loads
}
