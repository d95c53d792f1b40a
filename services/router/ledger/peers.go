package ledger

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/policy"
)

// PeerSilence is how long a peer counts that is not heard.
const PeerSilence = 3 * time.Second

// peer is another router that was heard lately.
type peer struct {
	name  string
	life  int64
	seq   uint64
	heard time.Time
}

// told is what a peer has under way on one engine.
type told struct {
	Entry
	by     *peer
	seq    uint64
	at     time.Time // when it was heard
	oldest time.Time // when its oldest waiting one was sent, and
	first  time.Time // when its last first byte came, by our clock
}

// Hear takes in what a peer tells: its requests count in what the policy sees of the engines, until it tells otherwise
// or is silent for PeerSilence. What is lost on the way is healed by the next whole news. Engines that v does not have
// are passed over; news that cannot be true are refused as a whole. Nothing that a peer sends makes the ledger
// grow beyond 64 peers with one entry for each engine.
func (p *Pool) Hear(v *fleet.View, n *News, now time.Time) error {
	for i := range n.Entries {
		if !n.Entries[i].plausible() {
			return fmt.Errorf("hear a peer: %w", ErrBadNews)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync(v)
	p.forgetSilent(now)
	from, err := p.peer(n, now)
	if err != nil {
		return fmt.Errorf("hear a peer: %w", err)
	}
	from.seq, from.heard = n.Seq, now
	for i := range n.Entries {
		if w := p.all[n.Entries[i].Engine]; w != nil {
			w.hear(&n.Entries[i], from, now)
		}
	}
	if n.Whole {
		p.unsay(now, func(t *told) bool { return t.by == from && t.seq != n.Seq })
	}
	return nil
}

// peer finds who tells n, and drops what an earlier life of it told. The lock is held.
func (p *Pool) peer(n *News, now time.Time) (*peer, error) {
	for _, from := range p.peers {
		if from.name != n.Router {
			continue
		}
		if from.life != n.Life {
			p.unsay(now, func(t *told) bool { return t.by == from })
			from.life, from.seq = n.Life, 0
		}
		if n.Seq <= from.seq {
			return nil, ErrOldNews
		}
		return from, nil
	}
	if len(p.peers) == maxPeers {
		return nil, ErrTooManyPeers
	}
	from := &peer{name: n.Router, life: n.Life}
	p.peers = append(p.peers, from)
	return from, nil
}

// forgetSilent drops the peers that have not been heard for too long. The lock is held.
func (p *Pool) forgetSilent(now time.Time) {
	silent := func(from *peer) bool { return now.Sub(from.heard) > PeerSilence }
	if slices.ContainsFunc(p.peers, silent) {
		p.unsay(now, func(t *told) bool { return silent(t.by) })
		p.peers = slices.DeleteFunc(p.peers, silent)
	}
}

// unsay drops some of what peers told. The lock is held.
func (p *Pool) unsay(now time.Time, which func(*told) bool) {
	for _, w := range p.all {
		w.pass(now)
		w.told = slices.DeleteFunc(w.told, func(t told) bool { return which(&t) })
	}
}

// Peers counts the other routers that have been heard lately.
func (p *Pool) Peers(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetSilent(now)
	return len(p.peers)
}

// hear puts an entry in the place of what that peer told before. The pool's lock is held.
func (w *row) hear(e *Entry, from *peer, now time.Time) {
	w.pass(now)
	t := told{Entry: *e, by: from, seq: from.seq, at: now, oldest: now.Add(-duration(e.OldestAge)), first: now.Add(-duration(e.FirstAge))}
	i := slices.IndexFunc(w.told, func(t told) bool { return t.by == from })
	if i < 0 {
		w.told = append(w.told, t)
		return
	}
	w.done.prefill += max(0, e.Prefilled-w.told[i].Prefilled)
	w.told[i] = t
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// beside is what peers have on an engine.
type beside struct {
	waiting, decoding int
	context           int     // of those that decode
	waitContext       int     // of those that wait
	uncached          int     // prompt tokens that will take room there
	seconds           float64 // of prefill that wait
}

func (w *row) beside() (b beside) {
	for i := range w.told {
		t := &w.told[i]
		b.waiting, b.decoding = b.waiting+t.Waiting, b.decoding+t.Active-t.Waiting
		b.waitContext += t.WaitContext
		b.context, b.uncached, b.seconds = b.context+t.DecodeContext, b.uncached+t.Uncached+t.Coming, b.seconds+t.WaitSeconds
	}
	return b
}

// join adds to c what peers have under way on the engine: one engine has one queue.
func (w *row) join(c *policy.Candidate, epoch, now time.Time) {
	for i := range w.told {
		t := &w.told[i]
		c.Active, c.Waiting, c.WaitContext, c.Uncached = c.Active+t.Active, c.Waiting+t.Waiting, c.WaitContext+t.WaitContext, c.Uncached+t.Uncached
		c.Coming, c.DecodeContext, c.WaitSeconds = c.Coming+t.Coming, c.DecodeContext+t.DecodeContext, c.WaitSeconds+t.WaitSeconds
		c.ColdWork += t.ColdWork * math.Exp(-now.Sub(t.at).Seconds()/coldDecay.Seconds())
		if sent := t.oldest.Sub(epoch).Seconds(); t.OldestSeconds > 0 && (c.OldestSeconds == 0 || sent < c.OldestSent) {
			c.OldestSent, c.OldestSeconds = sent, t.OldestSeconds
		}
		if t.FirstAge < longAgo {
			c.LastFirst = max(c.LastFirst, t.first.Sub(epoch).Seconds())
		}
	}
}

// crowd is how many requests are under way on the engines of f for each that is this router's.
func (f *field) crowd() float64 {
	own, all := 0, 0
	for i, w := range f.rows {
		own, all = own+w.active, all+f.seen.Candidates[i].Active
	}
	if own == 0 {
		return 1
	}
	return float64(all) / float64(own)
}

// Together tells what is under way by engine id, of this router and its peers, on the engines of the view.
func (p *Pool) Together() map[string]Load {
	p.mu.Lock()
	defer p.mu.Unlock()
	loads := make(map[string]Load, len(p.rows))
	for _, w := range p.rows {
		l := w.load()
		for i := range w.told {
			t := &w.told[i]
			l.Active, l.Waiting, l.WaitContext, l.Uncached = l.Active+t.Active, l.Waiting+t.Waiting, l.WaitContext+t.WaitContext, l.Uncached+t.Uncached
			l.WaitSeconds, l.DecodeContext = l.WaitSeconds+t.WaitSeconds, l.DecodeContext+t.DecodeContext
		}
		loads[w.engine.ID] = l
	}
	return loads
}
