// Package peers lets routers share their ledgers through NATS: each tells the others what it has under way, and hears
// them, so that each chooses as if it had sent all requests itself.
package peers

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const (
	gatherNews = 5 * time.Millisecond // changes within are told at once
	tellEvery  = time.Second          // all is told
	maxName    = 256                  // bytes of what a peer may call itself
)

// Self is the router that tells and hears. All fields must be set; the functions may be called at any time.
type Self struct {
	Instance string
	Life     int64 // another one after each start
	View     func() *fleet.View
	Pool     func(id string) *ledger.Pool // of a pool in the view
	Send     func(subject string, data []byte) error

	Heard   func(routers int)   // how many others count, each time that all is told
	Dropped func()              // news that NATS did not take; the next have it
	Refused func(reason string) // news of a peer that were not taken: a fixed word
}

// Peers are the other routers. Safe for concurrent use, but that Run runs once.
type Peers struct {
	self Self
	wake chan struct{} // something has changed

	gathering atomic.Bool       // what changes will be told
	seq       map[string]uint64 // of the latest news, by pool
	room      []ledger.Entry
}

// New returns the peers of a router; nothing is told or heard before Run.
func New(self Self) *Peers {
	return &Peers{self: self, wake: make(chan struct{}, 1), seq: make(map[string]uint64)}
}

// Changed is for ledger.Pool.OnChange. It wakes nobody while there is nobody to tell, or while news are gathered.
func (p *Peers) Changed() {
	if p.gathering.Load() || !p.have() {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// listener is what hearing needs of a bus.Conn.
type listener interface {
	Listen(subject string, fn func(subject string, data []byte)) (stop func(), err error)
}

// Run tells until ctx ends, and hears.
func (p *Peers) Run(ctx context.Context, conn listener) error {
	stop, err := conn.Listen(bus.LedgerSubject("*"), p.Hear)
	if err != nil {
		return err
	}
	defer stop()
	all := time.NewTicker(tellEvery)
	defer all.Stop()
	for gathered := (<-chan time.Time)(nil); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
			if gathered == nil {
				p.gathering.Store(true)
				gathered = time.After(gatherNews)
			}
		case <-gathered:
			gathered = nil
			p.gathering.Store(false) // before the ledger is read: what changes from here on wakes again
			p.tell(false)
		case <-all.C:
			p.tell(true)
		}
	}
}

// have says whether there is another router to tell. One that comes hears all within a second.
func (p *Peers) have() bool {
	for _, m := range p.self.View().Members {
		if m.Service == "router" && m.Instance != p.self.Instance {
			return true
		}
	}
	return false
}

// tell sends news of every pool that has any.
func (p *Peers) tell(whole bool) {
	now, heard := time.Now(), 0
	for id := range p.self.View().Pools {
		pool := p.self.Pool(id)
		p.room = pool.Tell(p.room[:0], whole, now)
		heard = max(heard, pool.Peers(now))
		if len(p.room) == 0 && !whole {
			continue
		}
		p.seq[id]++
		data, err := json.Marshal(ledger.News{Router: p.self.Instance, Life: p.self.Life, Seq: p.seq[id], Whole: whole, Entries: p.room})
		if err == nil {
			err = p.self.Send(bus.LedgerSubject(id), data)
		}
		if err != nil {
			p.self.Dropped()
		}
	}
	p.self.Heard(heard)
}

// Hear takes in one message, from whomever it is.
func (p *Peers) Hear(subject string, data []byte) {
	var n ledger.News
	if err := json.Unmarshal(data, &n); err != nil || n.Router == "" || len(n.Router) > maxName {
		p.self.Refused("unreadable")
		return
	}
	if n.Router == p.self.Instance && n.Life == p.self.Life {
		return
	}
	id, _ := bus.ParseLedgerSubject(subject)
	view := p.self.View()
	if _, known := view.Pools[id]; !known {
		return // the registry has not told of it yet; the next whole news will be heard
	}
	if err := p.self.Pool(id).Hear(view, &n, time.Now()); err != nil {
		p.self.Refused(refusal(err))
	}
}

// refusal says in a fixed word why news were not taken.
func refusal(err error) string {
	switch {
	case errors.Is(err, ledger.ErrOldNews):
		return "old"
	case errors.Is(err, ledger.ErrTooManyPeers):
		return "too many peers"
	}
	return "impossible"
}
