// Package explain finds what was decided in the past and says it in sentences.
//
// It reads the logs of decisions in NATS and computes nothing anew.
package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var (
	// ErrNoDecision says that no decision of the pool is logged.
	ErrNoDecision = errors.New("no decision of the pool is logged")
	// ErrTooEarly says that the log begins later.
	ErrTooEarly = errors.New("the log begins later")
)

// lookBack is where the search begins before the time that is asked for: a decision is logged each minute at least.
const lookBack = 2 * time.Minute

// maxAge is more than the log reaches back.
const maxAge = 1000 * time.Hour

// Parse reads a logged decision.
func Parse(m bus.Message) (autoscaler.Record, error) {
	var r autoscaler.Record
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return r, fmt.Errorf("read a logged decision: %w", err)
	}
	if r.Version != autoscaler.RecordVersion || bus.ScaleSubject(r.Pool) != m.Subject {
		return r, fmt.Errorf("read a logged decision: version %d of pool %q on %s", r.Version, r.Pool, m.Subject)
	}
	return r, nil
}

// Found is the decision in force at a time.
type Found struct {
	autoscaler.Record
	Next     time.Time                       // when the one after it was made; zero is none yet
	Came     map[decide.Role]decide.Realised // what a later decision says came of this one
	Earliest time.Time                       // the oldest decision of the pool that is logged
}

// At finds the decision of a pool that was in force at a time: the last one made until then. It errs with ErrNoDecision,
// or with ErrTooEarly and Found's Earliest. Cost: it reads some minutes of the log, and more where decisions are rare.
func At(ctx context.Context, conn *bus.Conn, pool string, at time.Time) (Found, error) {
	state, err := conn.StreamState(ctx, bus.Requests)
	if err != nil {
		return Found{}, fmt.Errorf("find a decision: %w", err)
	}
	s := search{conn: conn, pool: pool, last: state.Last}
	var found Found
	err = s.read(ctx, time.Time{}, func(r *autoscaler.Record) bool {
		found.Earliest = r.At
		return false
	})
	if err != nil {
		return Found{}, err
	}
	switch {
	case found.Earliest.IsZero():
		return found, ErrNoDecision
	case at.Before(found.Earliest):
		return found, ErrTooEarly
	}
	for back := lookBack; back < maxAge; back *= 8 {
		since := at.Add(-back)
		if err := s.read(ctx, since, func(r *autoscaler.Record) bool { return found.fold(r, at) }); err != nil {
			return found, err
		}
		if found.Pool != "" {
			return found, nil
		}
	}
	return found, ErrNoDecision // it was discarded just now
}

// fold takes the next decision of the log in and says whether more may be of use.
func (f *Found) fold(r *autoscaler.Record, at time.Time) (more bool) {
	if !r.At.After(at) {
		f.Record = *r
		return true
	}
	if f.Pool == "" {
		return false
	}
	if f.Next.IsZero() {
		f.Next = r.At
	}
	waits := false
	for role, d := range f.Roles {
		waits = f.realised(role, d, r) || waits
	}
	return waits
}

// realised looks in a later decision for what came of one role, and says whether a yet later one may tell it better.
func (f *Found) realised(role decide.Role, d decide.RoleDecision, later *autoscaler.Record) (waits bool) {
	if v := later.Roles[role].Realised; v != nil {
		old, known := f.Came[role]
		if known && distance(old.At, f.At) <= distance(v.At, f.At) {
			return false
		}
		if distance(v.At, f.At) <= time.Minute {
			if f.Came == nil {
				f.Came = make(map[decide.Role]decide.Realised)
			}
			f.Came[role] = *v
		}
		if !v.At.Before(f.At) {
			return false
		}
	}
	startup := time.Duration(d.Model.Startup * float64(time.Second))
	return later.At.Before(f.At.Add(2*startup + 2*time.Minute))
}

func distance(a, b time.Time) time.Duration {
	return time.Duration(math.Abs(float64(a.Sub(b))))
}

// search reads one pool's decisions as far as the log reached when it began.
type search struct {
	conn *bus.Conn
	pool string
	last uint64
}

// read calls fn with the decisions that were logged at a time or later, until it says false.
func (s *search) read(ctx context.Context, since time.Time, fn func(*autoscaler.Record) bool) error {
	if s.last == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	span := bus.Span{Stream: bus.Requests, Subjects: []string{bus.ScaleSubject(s.pool)}, Since: since, To: s.last}
	done := false
	err := s.conn.Read(ctx, span, func(m bus.Message) {
		if done {
			return
		}
		r, err := Parse(m)
		if err != nil {
			return // of another version
		}
		if done = !fn(&r); done {
			stop()
		}
	})
	if err != nil {
		return fmt.Errorf("find a decision: %w", err)
	}
	return nil
}
