package ledger

import (
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// Gate says until when an engine takes more requests. The zero value has no bounds.
type Gate struct {
	Wait time.Duration // a prompt would wait less than that for those before it
	ITL  time.Duration // a decode step with one sequence more takes no longer
}

const (
	// waitShare is the part of the TTFT that a prompt may wait in an engine. What waits there is served as it came and
	// not in the order of service, and one prompt ahead is enough to keep an engine busy: simulated overload gave the
	// same throughput with all of it, a quarter and a sixteenth, and with a sixteenth most answers in time.
	waitShare = 1. / 16
	itlShare  = .95 // of the ITL, up to where an engine takes sequences
	slack     = 2   // prompts are judged as if they took so many times as long, as others are computed beside them
)

// GateFor is the gate of a pool's objectives, of which a zero is none; the zero Gate where both are.
func GateFor(ttft, itl time.Duration) Gate {
	return Gate{Wait: time.Duration(waitShare * float64(ttft)), ITL: time.Duration(itlShare * float64(itl))}
}

// LateAt is when a prompt that came at a time cannot meet its TTFT any more, as far as anybody can tell.
func (p *Pool) LateAt(arrived time.Time, ttft time.Duration, cached, prompt int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	alone := p.state.Rate("").Prefill * p.state.PrefillSeconds(cached, prompt)
	return arrived.Add(ttft - time.Duration(slack*alone*float64(time.Second)) - GateFor(ttft, 0).Wait)
}

// Unbooked is what has been let in and has no engine yet: it will take room somewhere.
type Unbooked struct {
	Requests int
	Tokens   int // to be computed
}

// Room says whether the engines of v have room for one more request for a model, beside what is unbooked: for its prompt
// and its decoding, by the gate. An engine with nothing to do always has room for one, and where only ejected engines are
// left somebody must try them, by the same gate. Cost: linear in the pool's engines and the unbooked, and up to the first with room.
func (p *Pool) Room(v *fleet.View, model string, g Gate, u Unbooked, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	serving, healthy, decode, prefill := 0, 0, 0, 0
	for _, w := range p.rows {
		if !w.serves(model) {
			continue
		}
		if serving++; !w.health.usable(now) {
			continue
		}
		healthy++
		switch w.engine.Role {
		case fleet.Decode:
			decode++
		case fleet.Prefill:
			prefill++
		case fleet.Both:
		}
	}
	if healthy == 0 {
		return serving > 0 && p.holds(model, g, u, now, "", false)
	}
	if healthy == prefill || healthy == decode || prefill+decode == 0 { // each engine does all
		return p.holds(model, g, u, now, "", true)
	}
	return p.holds(model, Gate{ITL: g.ITL}, u, now, fleet.Prefill, true) && p.holds(model, Gate{Wait: g.Wait}, u, now, fleet.Decode, true)
}

// holds says whether the engines but those of a role, the healthy ones or the others, have room for one request more than
// is unbooked. The lock is held.
func (p *Pool) holds(model string, g Gate, u Unbooked, now time.Time, but fleet.Role, healthy bool) bool {
	left := u.Requests // to be placed before the one that is asked for
	for _, w := range p.rows {
		if w.engine.Role == but || !w.serves(model) || w.health.usable(now) != healthy {
			continue
		}
		s := w.space(p, g, now)
		for ; left >= 0 && s.open(p, g); left-- {
			s.add(p, u)
		}
		if left < 0 {
			return true
		}
	}
	return false
}

// space is what an engine has, and would have with a few more.
type space struct {
	requests, context int
	wait              float64
	prefill, decode   float64 // rates
}

// space looks at an engine. The lock is held.
func (w *row) space(p *Pool, g Gate, now time.Time) space {
	rate := p.state.Rate(w.engine.ID)
	s := space{prefill: rate.Prefill, decode: rate.Decode}
	w.settle(now)
	peers := w.beside()
	s.requests = w.active + peers.waiting + peers.decoding
	s.context = w.decodeContext + int(w.streamed.Load()) + w.waitContext + peers.context + peers.waitContext
	if g.Wait > 0 {
		s.wait = w.waitLeft(p, now) + rate.Prefill*peers.seconds
	}
	return s
}

// open says whether one more request would wait short enough, and let decode steps stay short.
func (s *space) open(p *Pool, g Gate) bool {
	if s.requests == 0 {
		return true
	}
	return (g.Wait <= 0 || s.wait < g.Wait.Seconds()) &&
		(g.ITL <= 0 || s.decode*p.state.StepSeconds(s.requests+1, s.context) <= g.ITL.Seconds())
}

// add places one of the unbooked.
func (s *space) add(p *Pool, u Unbooked) {
	tokens := u.Tokens / max(1, u.Requests)
	s.requests++
	s.context += tokens
	s.wait += s.prefill * p.state.PrefillSeconds(0, tokens)
}

// waitLeft is how long what waits here still computes: of the oldest, what can have been done by now is left out.
func (w *row) waitLeft(p *Pool, now time.Time) float64 {
	if len(w.waiting) == 0 {
		return 0
	}
	phi, oldest := p.state.Rate(w.engine.ID).Prefill, w.waiting[0]
	since := oldest.sent
	if w.lastFirst.After(since) {
		since = w.lastFirst
	}
	done := max(0, min(now.Sub(since).Seconds()/phi, oldest.seconds))
	return phi * max(0, w.waitSeconds-done)
}

// withRoom leaves in p.decode only the engines that have room by the wish's gate, if there are any. The lock is held.
func (p *Pool) withRoom(q *Wish, now time.Time) {
	if q.Gate == (Gate{}) {
		return
	}
	full := func(w *row) bool {
		g := q.Gate
		if w.engine.Role == fleet.Decode { // its prompts are computed elsewhere, or what waits here is part of the cost
			g.Wait = 0
		}
		s := w.space(p, g, now)
		return !s.open(p, g)
	}
	f := &p.decode
	for _, w := range f.rows {
		if !full(w) {
			f.rows = slices.DeleteFunc(f.rows, full)
			return
		}
	}
}

// Output is the mean of the output tokens of requests; 0 before any has ended.
func (p *Pool) Output() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.state.Output)
}

// Predicted is the time from the booking to the first byte, as it was predicted then: the wait for those before it, its
// own prompt, and the steps around it.
func (r *Reservation) Predicted() time.Duration {
	if r.remote {
		return r.expected.Sub(r.sent)
	}
	return time.Duration(r.predicted * float64(time.Second))
}
