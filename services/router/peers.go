package router

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const (
	gatherNews = 5 * time.Millisecond // changes within are told at once
	tellEvery  = time.Second          // all is told
)

// peers tells the other routers what this one has under way, and hears them: each then chooses as if it had sent all
// requests itself. What NATS does not take is dropped and counted; the next news have it.
type peers struct {
	rt   *router
	life int64
	wake chan struct{}     // something has changed
	seq  map[string]uint64 // of the latest news, by pool
	room []ledger.Entry
}

func newPeers(rt *router) *peers {
	return &peers{rt: rt, life: rt.started.UnixNano(), wake: make(chan struct{}, 1), seq: make(map[string]uint64)}
}

// changed is for ledger.Pool.OnChange.
func (p *peers) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// listener is what hearing needs of a bus.Conn.
type listener interface {
	Listen(subject string, fn func(subject string, data []byte)) (stop func(), err error)
}

// run tells until ctx ends, and hears.
func (p *peers) run(ctx context.Context, conn listener) error {
	stop, err := conn.Listen(bus.LedgerSubject("*"), p.hear)
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
			if gathered == nil && p.have() {
				gathered = time.After(gatherNews)
			}
		case <-gathered:
			gathered = nil
			p.tell(false)
		case <-all.C:
			p.tell(true)
		}
	}
}

// have says whether there is another router to tell. One that comes hears all within a second.
func (p *peers) have() bool {
	for _, m := range p.rt.fleet.View().Members {
		if m.Service == "router" && m.Instance != p.rt.instance {
			return true
		}
	}
	return false
}

// tell sends news of every pool that has any.
func (p *peers) tell(whole bool) {
	now, heard := time.Now(), 0
	for id := range p.rt.fleet.View().Pools {
		pool := p.rt.pool(id)
		p.room = pool.Tell(p.room[:0], whole, now)
		heard = max(heard, pool.Peers(now))
		if len(p.room) == 0 && !whole {
			continue
		}
		p.seq[id]++
		data, err := json.Marshal(ledger.News{Router: p.rt.instance, Life: p.life, Seq: p.seq[id], Whole: whole, Entries: p.room})
		if err == nil {
			err = p.rt.bus.Send(bus.LedgerSubject(id), data)
		}
		if err != nil {
			p.rt.metrics.dropped.WithLabelValues("ledger").Inc()
		}
	}
	p.rt.metrics.peers.Set(float64(heard))
}

// hear takes in one message, from whomever it is.
func (p *peers) hear(subject string, data []byte) {
	var n ledger.News
	if err := json.Unmarshal(data, &n); err != nil || n.Router == "" || len(n.Router) > maxName {
		p.rt.metrics.refused.WithLabelValues("unreadable").Inc()
		return
	}
	if n.Router == p.rt.instance && n.Life == p.life {
		return
	}
	id, _ := bus.ParseLedgerSubject(subject)
	view := p.rt.fleet.View()
	if _, known := view.Pools[id]; !known {
		return // the registry has not told of it yet; the next whole news will be heard
	}
	if err := p.rt.pool(id).Hear(view, &n, time.Now()); err != nil {
		p.rt.metrics.refused.WithLabelValues(refusal(err)).Inc()
	}
}

// maxName bounds what a peer may call itself.
const maxName = 256

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
