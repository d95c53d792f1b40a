package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/replica"
)

// markLinger is how long a mark stays when its engine is gone: one that is only slow to answer must not be chosen.
const markLinger = 30 * time.Second

// What became of a step.
const (
	done     = "done"
	conflict = "conflict"
	failed   = "failed"
)

var errForeign = errors.New("an operator drains the engine")

// act takes the steps of a decision and returns how many were done. The first of a role that fails ends those of the
// role: what follows may rest on it, and the next decision sees what there is. Other roles go on: a replica that cannot
// be taken from one must not keep another from growing.
func (s *scaler) act(ctx context.Context, id string, p *pool, d *decide.Decision, steps []decide.Step) (n int) {
	if !p.acts {
		return 0
	}
	ended := make(map[decide.Role]bool)
	for _, step := range steps {
		if ended[step.Role] {
			continue
		}
		at := make(map[string]*replica.Replica) // as of now: the step before may have taken seconds, and operators mark too
		for _, r := range replica.List(s.watcher.View(), id) {
			at[r.ID] = &r
		}
		err := s.step(ctx, id, at, &step, d.Roles[step.Role].Rule)
		outcome := done
		switch {
		case errors.Is(err, ErrConflict):
			outcome = conflict
		case err != nil:
			outcome = failed
		}
		s.metrics.orders.WithLabelValues(id, string(step.Role), string(step.Do), outcome).Inc()
		tried := fmt.Sprint(step.Do, " ", step.Role, " ", step.Engine)
		s.report(p, tried, err, "cannot carry out a decision", "pool", id, "role", step.Role, "do", step.Do, "engine", step.Engine, "from", step.From, "to", step.To)
		if ended[step.Role] = err != nil; err == nil {
			n++
		}
	}
	return n
}

// step takes one step.
func (s *scaler) step(ctx context.Context, id string, at map[string]*replica.Replica, step *decide.Step, why string) error {
	ctx, cancel := context.WithTimeout(ctx, actTime)
	defer cancel()
	switch step.Do {
	case decide.Drain, decide.Undrain:
		r := at[step.Engine]
		if r == nil {
			return fmt.Errorf("%s %s: %w", step.Do, step.Engine, errNoEngine)
		}
		switch {
		case r.Mark == replica.Foreign:
			return fmt.Errorf("%s %s: %w", step.Do, step.Engine, errForeign)
		case step.Do == decide.Drain && r.Mark != replica.None, step.Do == decide.Undrain && r.Mark == replica.None:
			return nil // it is so
		}
		s.cfg.Log.Info("engine is to "+string(step.Do), "pool", id, "role", step.Role, "engine", step.Engine)
		if step.Do == decide.Undrain {
			return s.unmark(ctx, id, r)
		}
		return s.mark(ctx, id, r, replica.ReasonDrains)
	case decide.Scale:
		return s.scale(ctx, id, at, step, why)
	}
	return nil
}

var errNoEngine = errors.New("the fleet does not know the engine")

// scale gives an order. Those that are to go are marked so before: whoever looks after a crash in between must not call
// back an engine that is about to end.
func (s *scaler) scale(ctx context.Context, id string, at map[string]*replica.Replica, step *decide.Step, why string) error {
	for _, victim := range step.Victims {
		if r := at[victim]; r != nil {
			if err := s.mark(ctx, id, r, replica.ReasonLeaves); err != nil {
				return err
			}
		}
	}
	order := Order{Pool: id, Role: step.Role, From: step.From, To: step.To, Victims: step.Victims, Why: why}
	err := s.cfg.Fleet.Scale(ctx, order)
	if err == nil {
		s.cfg.Log.Info("scaled", "pool", id, "role", step.Role, "from", step.From, "to", step.To, "victims", step.Victims, "rule", order.Why)
		return nil
	}
	for _, victim := range step.Victims {
		if r := at[victim]; r != nil {
			err = errors.Join(err, s.mark(ctx, id, r, replica.ReasonDrains))
		}
	}
	return err
}

// mark marks all ranks of a replica in KV drain.
func (s *scaler) mark(ctx context.Context, id string, r *replica.Replica, reason string) error {
	for _, rank := range r.Ranks {
		if err := fleet.Drain(ctx, s.conn, id, rank, fleet.DrainRecord{Since: time.Now().UTC(), Reason: reason}); err != nil {
			return fmt.Errorf("mark an engine: %w", err)
		}
	}
	return nil
}

// unmark undoes mark.
func (s *scaler) unmark(ctx context.Context, id string, r *replica.Replica) error {
	for _, rank := range r.Ranks {
		if err := fleet.Undrain(ctx, s.conn, id, rank); err != nil {
			return fmt.Errorf("unmark an engine: %w", err)
		}
	}
	return nil
}

// takeBack removes marks of ours that nothing stands behind any more: of engines that are gone, of those that were to go
// and are there all the same, of those of which only some ranks are marked, and of roles that are not scaled down now. An
// earlier life may have left them. What cannot be removed in time is left to the next tick.
func (s *scaler) takeBack(ctx context.Context, v *fleet.View, now time.Time) {
	if len(v.Drains) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, actTime)
	defer cancel()
	whole := make(map[string]replica.Mark) // by rank, that of its replica
	for id := range s.pools {
		for _, r := range replica.List(v, id) {
			for _, rank := range r.Ranks {
				whole[rank] = r.Mark
			}
		}
	}
	for id, m := range v.Drains {
		if s.backed(v, id, &m, whole[id], now) || replica.OfMark(s.watcher.View(), id) == replica.Foreign {
			continue
		}
		if err := fleet.Undrain(ctx, s.conn, m.Pool, id); err != nil {
			return
		}
		if e := v.Engines[id]; e.ID != "" && e.State != fleet.Gone {
			s.cfg.Log.Info("mark taken back", "pool", m.Pool, "engine", id, "reason", m.Reason, "since", m.Since)
		}
	}
}

// backed says whether something stands behind a mark, or it is not for us to say.
func (s *scaler) backed(v *fleet.View, id string, m *fleet.DrainMark, whole replica.Mark, now time.Time) bool {
	kind, age := replica.OfMark(v, id), now.Sub(m.Since)
	if kind != replica.Draining && kind != replica.Leaving {
		return true
	}
	e, there := v.Engines[id]
	p := s.pools[m.Pool]
	switch {
	case !there || e.State == fleet.Gone:
		return age < markLinger
	case p == nil: // not decided yet
		return true
	case kind == replica.Leaving:
		return age < replica.LeavesFor
	case whole == replica.None: // marking it ended half way, or has just begun
		return age < markLinger && p.takesAway(decide.Role(e.Role))
	}
	return p.takesAway(decide.Role(e.Role))
}

// takesAway says whether replicas of a role may be taken away by us.
func (p *pool) takesAway(role decide.Role) bool {
	r, scaled := p.managed.Replicas[role]
	return p.acts && p.managed.Policy.Mode == decide.On && scaled && r.Conflict == ""
}
