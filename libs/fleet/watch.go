package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
)

const tickEvery = 500 * time.Millisecond

// Watcher keeps a View up to date. While NATS is away the last one stays.
type Watcher struct {
	log  *slog.Logger
	view atomic.Pointer[View]

	mu      sync.Mutex
	changed chan struct{}

	// Owned by the goroutine of run.
	state  View
	roster roster
	bad    map[string]bool // keys whose record was unreadable, so that each is logged once
}

// update is one entry of one bucket.
type update struct {
	bucket string
	bus.Entry
}

// Watch reads the fleet and returns when it knows all that there is now; from then on it follows until ctx ends.
// log may be nil.
func Watch(ctx context.Context, c *bus.Conn, log *slog.Logger) (*Watcher, error) {
	if log == nil {
		log = slog.Default()
	}
	w := &Watcher{log: log, changed: make(chan struct{}), bad: make(map[string]bool)}
	w.state = View{Engines: map[string]Engine{}, Pools: map[string]Pool{}, Draining: map[string]bool{}, Drains: map[string]DrainMark{}}
	w.roster.tick(time.Now(), c.Up())
	w.publish()

	buckets := make(map[string]*bus.KV)
	for _, name := range []string{bus.Engines, bus.Config, bus.Drain, bus.Members} {
		kv, err := c.KV(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("watch the fleet: %w", err)
		}
		buckets[name] = kv
	}
	updates := make(chan update, 256)
	for name, kv := range buckets {
		follow := func(e bus.Entry) {
			select {
			case updates <- update{name, e}:
			case <-ctx.Done():
			}
		}
		go func() { _ = kv.Watch(ctx, ">", follow) }() // nil: ctx has ended
	}
	for left := len(buckets); left > 0; {
		select {
		case u := <-updates:
			if u.Key == "" {
				left--
			} else {
				w.apply(u)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("watch the fleet: %w", ctx.Err())
		}
	}
	w.publish()
	go w.run(ctx, c, updates)
	return w, nil
}

// View returns the present view; never nil, and not to be changed.
func (w *Watcher) View() *View { return w.view.Load() }

// Changed returns a channel that is closed when the view next changes. Take it before View, or a change is missed.
func (w *Watcher) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *Watcher) run(ctx context.Context, c *bus.Conn, updates <-chan update) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		var dirty bool
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			dirty = w.roster.tick(now, c.Up())
		case u := <-updates:
			dirty = w.apply(u)
			for range len(updates) { // what came at once is published at once
				dirty = w.apply(<-updates) || dirty
			}
		}
		if dirty {
			w.publish()
		}
	}
}

// publish hands out a copy of the state.
func (w *Watcher) publish() {
	v := &View{
		Engines:  maps.Clone(w.state.Engines),
		Pools:    maps.Clone(w.state.Pools),
		Draining: maps.Clone(w.state.Draining),
		Drains:   maps.Clone(w.state.Drains),
		Members:  w.roster.list(),
	}
	v.names = v.allNames()
	w.view.Store(v)
	w.mu.Lock()
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
}

// apply folds one entry into the state and says whether anything changed. An unreadable record counts as none.
func (w *Watcher) apply(u update) bool {
	switch u.bucket {
	case bus.Engines:
		pool, id, _ := strings.Cut(u.Key, ".")
		var e Engine
		if !w.decode(u, &e) || e.ID != id || e.Pool != pool {
			// An engine that serves another model now has moved to another pool: its old record says nothing any more.
			if old, had := w.state.Engines[id]; !had || old.Pool != pool {
				return false
			}
			delete(w.state.Engines, id)
			return true
		}
		w.state.Engines[id] = e
	case bus.Config:
		id, isPool := strings.CutPrefix(u.Key, poolPrefix)
		if !isPool {
			return false
		}
		var p Pool
		if !w.decode(u, &p) || p.ID != id {
			delete(w.state.Pools, id)
			return true
		}
		w.state.Pools[id] = p
	case bus.Drain:
		pool, id, _ := strings.Cut(u.Key, ".")
		was, had := w.state.Drains[id]
		if u.Deleted {
			delete(w.state.Draining, id)
			delete(w.state.Drains, id)
			return had
		}
		mark := DrainMark{Pool: pool}
		w.decode(u, &mark.DrainRecord) // an engine drains all the same
		w.state.Draining[id], w.state.Drains[id] = true, mark
		return !had || was != mark
	case bus.Members:
		var m Member
		if u.Deleted {
			return w.roster.remove(u.Key, u.Expired)
		}
		return w.decode(u, &m) && w.roster.put(u.Key, m)
	}
	return true
}

func (w *Watcher) decode(u update, record any) bool {
	if u.Deleted {
		return false
	}
	err := json.Unmarshal(u.Value, record)
	key := u.bucket + "/" + u.Key
	if err != nil && !w.bad[key] && len(w.bad) < 1000 {
		w.bad[key] = true
		w.log.Warn("cannot read a record", "key", key, "err", err)
	}
	return err == nil
}
