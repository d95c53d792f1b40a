package sim

import "github.com/warmpath/warmpath/loadgen/enginesim"

// The way of a request whose prompt one engine computes and another decodes, as the router and vLLM's NIXL connector
// have it: the prefill engine gets the prompt for one token, and its answer lets the decode engine have the request;
// that takes blocks, fetches what it does not hold, lets go of the prefill engine's, and goes on by the last token.

// prefill sends the prompt to the engine that is to compute it. Where that refuses it the decode engine is to.
func (f *world) prefill(c *call) bool {
	e := f.engines[c.booked.prefill]
	c.leg = c.request
	c.leg.MaxTokens, c.leg.Pin = 1, true
	if e.core.Submit(&c.leg) != nil {
		c.router.prefillFailed(&c.booked, f.clock.now)
		return false
	}
	if f.elastic != nil {
		f.elastic.handed(c, e)
	}
	f.work(e)
	return true
}

// computed is the prefill engine's answer.
func (f *world) computed(c *call) {
	c.router.prefillDone(&c.booked, f.clock.now)
	c.request.Remote = true
	f.decode(c)
}

// fetch moves a prompt's KV to an engine that waits for it.
func (f *world) fetch(e *engine, p *enginesim.Pull) {
	c := p.Request.Tag.(*call)
	f.network.move(c.booked.prefill, e.number, p.Tokens*f.o.Profile.KVBytes, c)
}

// received lets the decode engine go on, and frees the prompt on the prefill engine.
func (f *world) received(done *flow) {
	to, from := f.engines[done.to], f.engines[done.from]
	if to.core != nil { // else it is gone
		to.core.Pulled(done.call.request.ID)
		f.work(to)
	}
	if from.core != nil {
		from.core.Unpin(done.call.leg.ID)
		f.work(from)
	}
}
