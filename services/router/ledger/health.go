package ledger

import "time"

const (
	failuresToEject = 3
	ejectFirst      = 2 * time.Second
	ejectLongest    = 30 * time.Second
)

// health is what this router has seen of an engine's answers. The pool's lock guards it.
type health struct {
	failures int       // in a row
	until    time.Time // ejected until then; afterwards one request probes it
	last     time.Duration
	probing  bool

	suspect bool      // silent for too long; no requests until it gives a sign of life
	asked   bool      // a probe is under way
	probed  time.Time // the last
}

// usable says whether the engine may get a request now: not while it is suspected. An engine whose time is over is half open: one request at a
// time, until one is answered.
func (h *health) usable(now time.Time) bool {
	return !h.suspect && (h.until.IsZero() || !now.Before(h.until) && !h.probing)
}

// chosen marks the request that probes a half-open engine.
func (h *health) chosen() { h.probing = !h.until.IsZero() }

// answers opens an engine again that has begun an answer; whether it ends well is not known yet.
func (h *health) answers() { h.until, h.probing = time.Time{}, false }

// good forgives everything after a whole answer.
func (h *health) good() { *h = health{asked: h.asked, probed: h.probed} }

// bad counts a failure and says whether it ejected the engine. Each time in a row lasts twice as long.
func (h *health) bad(now time.Time) (ejected bool) {
	h.failures++
	h.probing = false
	if h.failures < failuresToEject || now.Before(h.until) {
		return false
	}
	return h.eject(now)
}

// eject passes the engine over for a while, unless it already is.
func (h *health) eject(now time.Time) (ejected bool) {
	if now.Before(h.until) {
		return false
	}
	h.failures, h.probing = max(h.failures, failuresToEject), false
	h.last = min(max(ejectFirst, 2*h.last), ejectLongest)
	h.until = now.Add(h.last)
	return true
}
