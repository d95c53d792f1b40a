package index

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

const (
	inbox       = 256 // decoded messages waiting for the writer
	reapEvery   = time.Second
	sweepEvery  = 100 * time.Millisecond
	sweepRows   = 1 << 16
	rereadLimit = 30 * time.Second
)

// writer is the one goroutine that changes the store.
type writer struct {
	conn    *bus.Conn
	store   *store
	fleet   *fleet.Watcher
	metrics *metrics
	log     *slog.Logger
	in      chan item
	ready   func(why string) // tells the world; why is empty when Match may be asked
	visible func(*eventsv1.Delta)

	live      bool // what was in the stream at the start has been applied
	buckets   map[bucketID]*bucket
	engines   int               // over all buckets
	held      int               // bytes of incomplete snapshots
	buried    map[string]uint64 // engines whose record was deleted: their last generation
	logged    map[string]bool   // causes that were logged
	wanting   map[bucketID]want // buckets of which something is not known
	rereading bool
}

func newWriter(conn *bus.Conn, s *store, f *fleet.Watcher, m *metrics, log *slog.Logger) *writer {
	return &writer{conn: conn, store: s, fleet: f, metrics: m, log: log, in: make(chan item, inbox),
		buckets: make(map[bucketID]*bucket), buried: make(map[string]uint64), logged: make(map[string]bool), wanting: make(map[bucketID]want)}
}

// run applies what the reader sends, drops engines that the registry says are gone, and frees their rows, until ctx ends.
func (w *writer) run(ctx context.Context) error {
	sweep, reap := time.NewTicker(sweepEvery), time.NewTicker(reapEvery)
	defer sweep.Stop()
	defer reap.Stop()
	changed := w.fleet.Changed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case it := <-w.in:
			w.take(ctx, it)
		case <-changed:
			changed = w.fleet.Changed()
			w.reap(time.Now())
		case now := <-reap.C:
			w.reap(now)
			w.askForMissing(now)
		case <-sweep.C:
			w.sweep()
		}
	}
}

func (w *writer) take(ctx context.Context, it item) {
	switch it.mark {
	case caughtUp:
		w.live = true
		w.reap(time.Now())
		w.ready("")
		w.log.Info("index is caught up", "applied", w.store.applied.Load(), "engines", w.engines)
	case startAll:
		w.ready("reading the new stream")
		w.live = false
		w.metrics.resets.Inc()
		w.store.clear()
		w.buckets, w.engines, w.held = make(map[bucketID]*bucket), 0, 0
		clear(w.buried)
	default:
		w.store.begun.Store(it.seq)
		w.fold(ctx, it)
		w.store.applied.Store(it.seq)
		w.metrics.applied.Set(float64(it.seq))
	}
}

func (w *writer) sweep() {
	rows := 0
	for _, p := range *w.store.pools.Load() {
		p.x.Sweep(sweepRows)
		rows += p.x.Rows()
	}
	w.metrics.rows.Set(float64(rows))
	w.metrics.engines.Set(float64(w.engines))
}

// refuse counts something that cannot be used, and logs each reason once.
func (w *writer) refuse(reason string, it item, err error) {
	w.metrics.refused.WithLabelValues(reason).Inc()
	if !w.logged[reason] {
		w.logged[reason] = true
		w.log.Error("refused a part of the event log; further ones are only counted", "reason", reason,
			"subject", bus.EventSubject(it.pool, it.n), "sequence", it.seq, "err", err)
	}
}

// ask asks the owner of a bucket for fresh snapshots.
func (w *writer) ask(id bucketID) {
	if w.live {
		_ = w.conn.Send(bus.AskSubject(id.pool, id.n), nil) // askForMissing asks again
	}
}

// reread drops a bucket and folds its log again, up to and including the message with sequence until. Meanwhile the
// bucket is not part of any answer.
func (w *writer) reread(ctx context.Context, id bucketID, until uint64) {
	w.metrics.holes.Inc()
	w.log.Error("a message of the event log is missing: reading the bucket again",
		"subject", bus.EventSubject(id.pool, id.n), "sequence", until)
	bit := uint64(1) << id.n
	w.store.covered.Store(w.store.covered.Load() &^ bit)
	w.forget(id)
	if err := w.foldAgain(ctx, id, until); err != nil {
		w.log.Error("cannot read the bucket again: its engines stay unknown until their next snapshot or reset",
			"subject", bus.EventSubject(id.pool, id.n), "err", err)
		w.forget(id)
	}
	w.store.life.Add(1) // a Match that ran all the while saw it half done
	w.store.covered.Store(w.store.covered.Load() | bit)
	w.ask(id)
}

func (w *writer) foldAgain(ctx context.Context, id bucketID, until uint64) error {
	ctx, cancel := context.WithTimeout(ctx, rereadLimit)
	defer cancel()
	subjects := []string{bus.EventSubject(id.pool, id.n)}
	if n, err := w.conn.Pending(ctx, bus.Events, subjects, 1); err != nil || n == 0 {
		return err
	}
	w.rereading = true
	defer func() { w.rereading = false }()
	done := false
	err := w.conn.Follow(ctx, bus.Events, subjects, 1, func(m bus.Message) {
		if done {
			return
		}
		if m.Seq <= until {
			w.fold(ctx, decode(m))
		}
		if done = m.Seq >= until || m.Pending == 0; done {
			cancel()
		}
	})
	if err == nil && !done {
		err = fmt.Errorf("read bucket again: %w", context.Cause(ctx))
	}
	return err
}
