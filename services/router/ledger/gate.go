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

// Room says whether an engine of v, or one for the prompt and one to decode, has room for one more request for a model
// by the gate. An engine with nothing to do always has, and where only ejected engines are left somebody must try them.
// Cost: linear in the pool's engines, and up to the first with room.
func (p *Pool) Room(v *fleet.View, model string, g Gate, u Unbooked, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	serving, healthy := 0, 0
	apart, decodes, computes := false, false, false
	for _, w := range p.rows {
		if !w.serves(model) {
			continue
		}
		if serving++; !w.health.usable(now) {
			continue
		}
		healthy++
		short, smooth := w.room(p, g, u, now)
		if short && smooth {
			return true
		}
		decodes = decodes || smooth && w.engine.Role == fleet.Decode
		computes = computes || short && w.engine.Role != fleet.Decode
		apart = apart || w.engine.Role != fleet.Both
	}
	return serving > 0 && healthy == 0 || apart && decodes && computes
}

// room says whether a prompt would wait short enough, and whether decode steps stay short with one sequence more. What
// is unbooked is taken to spread over all engines. The lock is held.
func (w *row) room(p *Pool, g Gate, u Unbooked, now time.Time) (short, smooth bool) {
	rows, rate := len(p.rows), p.state.Rate(w.engine.ID)
	c := w.candidate(p.epoch, now)
	short, smooth = true, true
	if g.Wait > 0 {
		wait := w.waitLeft(p, now) + rate.Prefill*p.state.PrefillSeconds(0, u.Tokens/rows)
		short = c.Active == 0 && u.Requests < rows || wait < g.Wait.Seconds()
	}
	if g.ITL > 0 {
		sequences, context := c.Active+u.Requests/rows+1, c.DecodeContext+c.WaitContext+u.Tokens/rows
		smooth = sequences == 1 || rate.Decode*p.state.StepSeconds(sequences, context) <= g.ITL.Seconds()
	}
	return short, smooth
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
		short, smooth := w.room(p, q.Gate, Unbooked{}, now)
		return !smooth || !short && w.engine.Role != fleet.Decode
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
