package autoscaler

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/observe"
	"github.com/warmpath/warmpath/services/autoscaler/internal/replica"
)

const (
	keepEvery = 30 * time.Second // between two times that a pool's state is kept
	actTime   = 10 * time.Second // for one order
)

// scaler decides for all pools and acts. But for the observer and what is safe by itself it belongs to the goroutine of
// run.
type scaler struct {
	cfg      Config
	conn     *bus.Conn
	watcher  *fleet.Watcher
	metrics  *metrics
	clock    observe.Clock
	every    time.Duration
	observer observe.Observer
	log      decisions
	pools    map[string]*pool

	complained sync.Map // kinds of what was malformed
}

// pool is what is remembered of one pool.
type pool struct {
	managed  Managed
	owned    bool // the Fleet manages it,
	acts     bool // and carries out its orders
	begun    bool // the state is what was kept, or is kept by us
	state    decide.State
	last     decide.Decision
	recorded time.Time
	kept     time.Time
	trouble  map[string]string // what went wrong last, by what was tried: each is logged once
}

func (s *scaler) acts() bool { _, files := s.cfg.Fleet.(*policyFile); return !files }

// run decides every tick until ctx ends; then it keeps all states and shows no more. It may be called again: what was
// kept last, by whoever decided meanwhile, is what it begins with. Only who decides listens, and sums up what routers count
// from then on: the sums of two autoscalers must not be compared, as who goes on from a state that another kept would.
func (s *scaler) run(ctx context.Context) error {
	s.pools = make(map[string]*pool)
	s.observer.Restart()
	stop, err := s.listen()
	if err != nil {
		return err
	}
	defer stop()
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.keepAll(context.WithoutCancel(ctx))
			for id := range s.pools {
				s.metrics.forget(id)
			}
			return nil
		case now := <-tick.C:
			s.tick(ctx, s.watcher.View(), now)
		}
	}
}

// tick decides for every pool that is known or managed.
func (s *scaler) tick(ctx context.Context, v *fleet.View, now time.Time) {
	managed := s.cfg.Fleet.Pools()
	for id, m := range managed {
		p := s.pool(id, &m)
		p.owned, p.acts = true, s.acts()
	}
	for id := range v.Pools {
		if _, ok := managed[id]; !ok {
			p := s.pool(id, &Managed{Policy: s.cfg.Policy})
			p.owned, p.acts = false, false
		}
	}
	for id, p := range s.pools {
		_, known := v.Pools[id]
		if _, ok := managed[id]; !known && !ok {
			delete(s.pools, id)
			s.metrics.forget(id)
			continue
		}
		s.decide(ctx, v, id, p, now)
	}
	s.observer.Forget(v)
	if managed != nil { // else whose marks are wanted is not known
		s.takeBack(ctx, v, now)
	}
}

// pool finds a pool, or begins one. The state that was kept of it may be found only after some decisions.
func (s *scaler) pool(id string, m *Managed) *pool {
	p := s.pools[id]
	if p == nil {
		p = &pool{trouble: make(map[string]string), kept: time.Now()}
		s.pools[id] = p
	}
	if m.State != nil && !p.begun {
		p.begun, p.state = true, decide.State{}
		if err := json.Unmarshal(m.State, &p.state); err != nil {
			s.cfg.Log.Warn("cannot read the state that was kept; learning begins anew", "pool", id, "err", err)
			p.state = decide.State{}
		}
	}
	p.managed = *m
	return p
}

// decide folds in what is known of a pool now, acts, and says so.
func (s *scaler) decide(ctx context.Context, v *fleet.View, id string, p *pool, now time.Time) {
	policy := p.managed.Policy
	if !p.acts {
		policy.Mode = decide.Shadow
	}
	if policy.Mode == decide.Off {
		s.metrics.forget(id)
		return
	}
	seen := s.observer.Observe(v, id, now)
	seen.Replicas = p.replicas(v, id, now)
	o := s.clock.Observation(seen)
	p.state.Policy = policy
	d, err := p.next(o, s.clock.Time(now))
	if s.report(p, "decide", err, "cannot go on from the state of a pool; learning begins anew", "pool", id); err != nil {
		return
	}
	done := s.act(ctx, id, p, &d, decide.Steps(policy, o, d))
	d.At = now
	s.metrics.decided(id, &o, &p.last, &d)
	if done > 0 || differs(&p.last, &d) || now.Sub(p.recorded) >= recordEvery {
		s.record(ctx, id, &d)
		p.recorded = now
	}
	p.last = d
	if now.Sub(p.kept) >= keepEvery {
		s.keep(ctx, id, p)
		p.kept = now
	}
}

// next decides. A state that was kept comes from outside: one so damaged that nothing can go on from it is dropped, as
// it would end every autoscaler that reads it.
func (p *pool) next(o decide.Observation, now time.Time) (d decide.Decision, err error) {
	defer func() {
		if why := recover(); why != nil {
			p.state, p.begun = decide.State{}, true
			err = fmt.Errorf("decide: %v", why)
		}
	}()
	p.state, d = p.state.Decide(o, now)
	return d, nil
}

// replicas is what runs: as the Fleet says or, where none does, as the fleet's records do.
func (p *pool) replicas(v *fleet.View, id string, now time.Time) map[decide.Role]decide.Replicas {
	if p.acts {
		return p.managed.Replicas
	}
	all := make(map[decide.Role]decide.Replicas)
	for _, e := range replica.List(v, id) {
		r := all[e.Role]
		r.Read, r.Desired, r.Ready = now, r.Desired+1, r.Ready+1
		all[e.Role] = r
	}
	return all
}

// keepAll keeps the state of every pool.
func (s *scaler) keepAll(ctx context.Context) {
	for id, p := range s.pools {
		s.keep(ctx, id, p)
	}
}

// keep keeps a pool's state for the next start.
func (s *scaler) keep(ctx context.Context, id string, p *pool) {
	if !p.owned || p.last.Roles == nil {
		return // nobody's, or nothing was decided
	}
	ctx, cancel := context.WithTimeout(ctx, actTime)
	defer cancel()
	p.begun = true
	state, err := json.Marshal(p.state)
	if err == nil {
		err = s.cfg.Fleet.Keep(ctx, id, state, p.last)
	}
	s.report(p, "keep", err, "cannot keep the state of a pool", "pool", id)
}

// report logs what went wrong with what was tried, once for as long as it goes wrong in the same way.
func (s *scaler) report(p *pool, tried string, err error, message string, about ...any) {
	if err == nil {
		delete(p.trouble, tried)
		return
	}
	if p.trouble[tried] != err.Error() {
		p.trouble[tried] = err.Error()
		s.cfg.Log.Warn(message, append(about, "err", err)...)
	}
}
