package ledger

import (
	"errors"
	"time"
)

// Entry is what one router has under way on one engine, as it tells its peers. It names no prompt and no key. Times are
// ages in seconds at the telling, as clocks differ. The zero value but for Engine is an engine without requests.
type Entry struct {
	Engine        string  `json:"e"`
	Active        int     `json:"a,omitempty"`  // requests not finished
	Waiting       int     `json:"w,omitempty"`  // of these, without a first byte
	WaitContext   int     `json:"wc,omitempty"` // prompt tokens of the waiting
	Uncached      int     `json:"u,omitempty"`  // of these, to be computed there
	Coming        int     `json:"c,omitempty"`  // of these, computed by a prefill engine
	DecodeContext int     `json:"d,omitempty"`  // context tokens of those that decode
	WaitSeconds   float64 `json:"s,omitempty"`  // prefill seconds of the waiting, as the profile says
	OldestAge     float64 `json:"oa,omitempty"` // since the oldest waiting one was sent
	OldestSeconds float64 `json:"os,omitempty"` // its prefill seconds; 0 where none waits to be computed there
	FirstAge      float64 `json:"fa,omitempty"` // since the last first byte; an hour where there was none
	ColdWork      float64 `json:"cw,omitempty"` // uncached tokens sent there, decayed over 30 s
	Prefilled     float64 `json:"p,omitempty"`  // prefill seconds that were done there for this router since it met the engine
}

// News is what one router tells its peers of a pool: the entries of the engines that have changed or, where it is
// whole, of all that it has used; those it does not name then have nothing of it.
type News struct {
	Router  string  `json:"router"`
	Life    int64   `json:"life"` // another value is another process, which has none of the requests of the one before
	Seq     uint64  `json:"seq"`  // counts from 1 in a life
	Whole   bool    `json:"whole,omitempty"`
	Entries []Entry `json:"engines"`
}

// Why Hear does not take news.
var (
	ErrTooManyPeers = errors.New("too many peers")
	ErrBadNews      = errors.New("news cannot be true")
	ErrOldNews      = errors.New("later news have been heard")
)

const (
	maxPeers    = 64
	longAgo     = 3600. // seconds; what is older is not told apart
	mostTokens  = 1 << 40
	mostSeconds = 1e9
)

// OnChange lets changed be called when the first engine changes since the last Tell. It runs under the pool's lock, and
// must neither block nor call the pool. It is set before the pool is used.
func (p *Pool) OnChange(changed func()) { p.changed = changed }

// touch notes that what this router has on the engine has changed. The lock is held.
func (w *row) touch() {
	w.dirty = true
	if p := w.pool; !p.dirty {
		if p.dirty = true; p.changed != nil {
			p.changed()
		}
	}
}

// Tell appends to dst what peers should hear now: the engines that have changed since the last Tell or, if whole, all
// that this router has used.
func (p *Pool) Tell(dst []Entry, whole bool, now time.Time) []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = false
	for _, w := range p.all {
		if w.dirty || whole && !w.coldAt.IsZero() {
			dst = append(dst, w.entry(now))
		}
		w.dirty = false
	}
	return dst
}

// entry is what this router has on the engine.
func (w *row) entry(now time.Time) Entry {
	e := Entry{
		Engine: w.engine.ID, Active: w.active, Waiting: w.unanswered(), WaitContext: w.waitContext, Uncached: w.uncached,
		Coming: w.coming.tokens, DecodeContext: w.decodeContext + int(w.streamed.Load()), WaitSeconds: w.waitSeconds,
		FirstAge: longAgo, ColdWork: w.cold(now), Prefilled: w.prefilled,
	}
	if len(w.waiting) > 0 {
		e.OldestAge, e.OldestSeconds = max(0, now.Sub(w.waiting[0].sent).Seconds()), w.waiting[0].seconds
	}
	if !w.lastFirst.IsZero() {
		e.FirstAge = max(0, min(longAgo, now.Sub(w.lastFirst).Seconds()))
	}
	return e
}

// plausible says whether the numbers can be those of an engine.
func (e *Entry) plausible() bool {
	for _, n := range [...]int{e.Active, e.Waiting, e.WaitContext, e.Uncached, e.Coming, e.DecodeContext} {
		if n < 0 || n > mostTokens {
			return false
		}
	}
	for _, s := range [...]float64{e.WaitSeconds, e.OldestAge, e.OldestSeconds, e.FirstAge, e.ColdWork, e.Prefilled} {
		if !(s >= 0 && s <= mostSeconds) { // NaN is neither
			return false
		}
	}
	return e.Waiting <= e.Active
}
