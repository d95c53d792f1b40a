package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
)

// history is the log of a bucket as it was written so far.
type history interface {
	// read calls each with the messages from the bucket's position on, until that with sequence until.
	read(ctx context.Context, until uint64, each func(bus.Message)) error
	// options are those of an engine that the log may tell of; false where nobody knows the engine any more.
	options(engine string) (prefix.EngineOptions, bool)
}

// takeOver reads what the log tells up to our claim and hands it to the engines' caches (event-log.md 5). Their
// sessions have held back what came meanwhile.
func (b *bucket) takeOver(ctx context.Context, claim uint64, began time.Time) error {
	fold := &eventlog.Fold{New: func(id string) *prefix.Engine {
		if o, ok := b.history.options(id); ok {
			return prefix.NewEngine(o)
		}
		return nil
	}}
	var refused error
	if b.history != nil {
		err := b.history.read(ctx, claim, func(m bus.Message) {
			if err := fold.Message(m.Seq, m.Time, m.Data); err != nil && refused == nil {
				refused = fmt.Errorf("message %d: %w", m.Seq, err)
			}
		})
		if err != nil {
			return fmt.Errorf("take over: %w", err)
		}
	}
	if refused != nil {
		b.m.refused.Add(float64(fold.Refused))
		b.log.Error("the event log holds what cannot be used: its engines are read from themselves", "bucket", b.name,
			"refused", fold.Refused, "unequal", fold.Unequal, "first", refused)
	}
	engines := fold.Engines()
	b.log.Info("bucket taken over", "bucket", b.name, "engines", len(engines), "operations", fold.Operations,
		"messages", fold.Messages, "bytes", fold.Bytes, "seconds", time.Since(began).Seconds())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told, b.toldAt, b.written, b.cutting = engines, time.Now(), fold.Bytes, nil
	for _, c := range b.caches {
		if c.isOpen() {
			c.reclaimed(engines[c.id])
			delete(b.told, c.id)
		} else {
			b.hand(c)
		}
	}
	return nil
}

// toldFor is how long the state of an engine that we have not met waits for it.
const toldFor = 5 * time.Minute

const stallLimit = 15 * time.Second // without a message of a log that is being read

var errStalled = errors.New("the log stands still")

// bucketHistory reads from NATS.
type bucketHistory struct {
	s  *service
	id fleet.BucketID
}

func (h bucketHistory) read(ctx context.Context, until uint64, each func(bus.Message)) error {
	select { // each may hold many megabytes
	case h.s.readers <- struct{}{}:
		defer func() { <-h.s.readers }()
	case <-ctx.Done():
		return ctx.Err()
	}
	subjects := []string{h.id.Subject()}
	from, err := fleet.Position(ctx, h.s.conn, h.id)
	if err != nil {
		return err
	}
	if from > until { // of a stream that is no more
		from = 1
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallLimit, func() { cancel(errStalled) })
	defer stalled.Stop()
	err = h.s.conn.Read(ctx, bus.Span{Stream: bus.Events, Subjects: subjects, From: from, To: until}, func(m bus.Message) {
		stalled.Reset(stallLimit)
		each(m)
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (h bucketHistory) options(engine string) (prefix.EngineOptions, bool) {
	for _, src := range h.s.following() {
		for _, k := range src.keepers() {
			if k.rank.id == engine && k.pool.ID == h.id.Pool {
				return k.options(), k.blind == ""
			}
		}
	}
	view := h.s.fleet.View()
	e, known := view.Engines[engine]
	p, ok := view.Pools[h.id.Pool]
	return prefix.EngineOptions{Seed: h.s.seed, Pool: p.ID, BlockSize: p.BlockSize, Blocks: e.Blocks}, known && ok && e.Pool == p.ID
}

// resume goes on with the life in which the event log left the engine, if it told of it: a replay from its last batch
// shows whether it is the same life still. Without a replay endpoint the process must be known to be the same, and the
// next frame to be the next batch.
func (s *session) resume(ctx context.Context) {
	began := time.Now()
	told, known := s.cache.told()
	if !known {
		s.begin("the event log does not tell of the engine")
		if s.life.replays {
			s.settle(ctx, askReplay, false)
		}
		return
	}
	told.replays = s.life.replays
	s.life = told
	s.tell()
	next := askReplay
	switch {
	case !told.replays && told.begun:
		next = judgeLife
	case !told.replays:
		next = proceed // nothing has been folded of this life
	}
	if told.begun {
		s.lastSign = cmp.Or(told.last.ts, -1) // a batch that could not be read vouches for no process
	}
	s.settle(ctx, next, false)
	s.lastSign = 0
	if ctx.Err() != nil {
		return
	}
	s.cache.resumed()
	s.m.resumed.Observe(time.Since(began).Seconds())
}
