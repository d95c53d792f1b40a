package sim

import (
	"fmt"
	"maps"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/ledger"
)

// modelName is the one model of a simulation.
const modelName = "model"

// router is a router as the service has it, with virtual time for the clock.
type router struct {
	pool  *ledger.Pool
	view  *fleet.View
	index *index
	rival *rival // nil where the router's own policies choose
	epoch time.Time
	wish  ledger.Wish
	seq   uint64 // of its news
}

// booking is a request's place in the router's books.
type booking struct {
	engine  int
	prefill int // the engine that computes the prompt; engine itself where there is no other
	held    *ledger.Reservation
}

// split says whether another engine computes the prompt.
func (b *booking) split() bool { return b.prefill != b.engine }

// newRouters are the routers of a fleet. They watch one registry and ask one index.
func newRouters(o Options, engines []*engine) (all []*router, err error) {
	shared := newFleet(o, engines)
	for i := range max(1, o.Routers) {
		r := shared
		pick, rival, err := picker(o, &r, engines)
		if err != nil {
			return nil, err
		}
		r.rival = rival
		r.pool = ledger.NewPool(poolID, pick, o.Seed+uint64(i)<<32, r.epoch)
		r.wish = ledger.Wish{Streams: true, Model: modelName, Split: splitter(o, pick, rival)}
		r.wish.Gate = o.gate()
		all = append(all, &r)
	}
	return all, nil
}

// newFleet is what routers know of the fleet: its registry and its index.
func newFleet(o Options, engines []*engine) router {
	r := router{epoch: Begin(), view: &fleet.View{
		Engines: map[string]fleet.Engine{},
		Pools:   map[string]fleet.Pool{poolID: {ID: poolID, Model: modelName, BlockSize: o.BlockSize}},
	}}
	var ids []string
	var blocks []int
	for i, e := range engines {
		id, n := fmt.Sprintf("engine-%04d", i), e.core.Options().Blocks
		ids, blocks = append(ids, id), append(blocks, n)
		r.view.Engines[id] = fleet.Engine{ID: id, Name: id, Pool: poolID, Role: o.role(i), Ranks: 1, BlockSize: o.BlockSize,
			Blocks: n, Generation: 1, State: fleet.OK}
	}
	r.index = newIndex(ids, o.BlockSize, blocks)
	return r
}

// time is what the router's clock says.
func (r *router) time(now time.Duration) time.Time { return r.epoch.Add(now) }

// tell changes an engine's record in the registry.
func (r *router) tell(engine int, life uint64, state fleet.State) {
	view := *r.view
	view.Engines = maps.Clone(view.Engines)
	e := view.Engines[r.index.ids[engine]]
	e.Generation, e.State = life, state
	view.Engines[e.ID] = e
	r.view = &view
	if r.rival != nil && r.rival.guess != nil {
		r.rival.guess.forget(engine)
	}
}

// choose routes the latest turn of a session, of which p is the prompt, and books it; false where no engine is left.
func (r *router) choose(now time.Duration, s *session, p *prompt) (booking, bool) {
	r.wish.Score, r.wish.Bytes = r.index.ask(p.length, p.keys), 4*p.length
	if r.rival != nil {
		r.rival.keys, r.rival.session = r.wish.Score.Keys, s
	}
	held, _ := r.pool.Reserve(r.view, &r.wish, r.epoch.Add(now))
	if held == nil {
		return booking{}, false
	}
	b := booking{engine: r.index.numbers[held.Engine.ID], held: held}
	if b.prefill = b.engine; held.Prefill != nil {
		b.prefill = r.index.numbers[held.Prefill.Engine.ID]
	}
	return b, true
}

func (r *router) prefillDone(b *booking, now time.Duration) { b.held.PrefillDone(r.epoch.Add(now)) }

// prefillFailed lets the decode engine compute the prompt.
func (r *router) prefillFailed(b *booking, now time.Duration) {
	b.held.PrefillFailed(r.epoch.Add(now))
	b.prefill = b.engine
}

func (r *router) firstByte(b *booking, now time.Duration) { b.held.FirstByte(r.epoch.Add(now)) }

func (r *router) token(b *booking, gap time.Duration) { b.held.Token(1, gap) }

// release takes a request out of the books when it has ended.
func (r *router) release(b *booking, now time.Duration, answered bool, output int) {
	b.held.Release(r.epoch.Add(now), answered, answered)
	if answered {
		r.pool.Finished(output)
	}
}

func (r *router) scraped(now time.Duration, engine int, usage float64, queued int) {
	r.pool.Scraped(r.index.ids[engine], ledger.Scrape{Usage: usage, Queued: queued}, r.time(now))
}
