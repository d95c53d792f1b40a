package index

import (
	"context"
	"log/slog"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

const (
	inbox       = 32 // decoded messages, of up to 256 KiB, waiting for the writer
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
	stray   <-chan func(*store)

	now       func() time.Time // time.Now, but in tests
	live      bool             // what was in the stream at the start has been applied
	buckets   map[fleet.BucketID]*bucket
	engines   int               // over all buckets
	held      int               // bytes of incomplete snapshots
	buried    map[string]uint64 // engines whose record was deleted: their last generation
	logged    map[string]bool   // causes that were logged
	rereading bool
}

func newWriter(conn *bus.Conn, s *store, f *fleet.Watcher, m *metrics, log *slog.Logger) *writer {
	return &writer{conn: conn, store: s, fleet: f, metrics: m, log: log, in: make(chan item, inbox),
		buckets: make(map[fleet.BucketID]*bucket), buried: make(map[string]uint64), logged: make(map[string]bool), now: time.Now}
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
			w.reap(w.now())
		case <-reap.C:
			w.reap(w.now())
			w.repair(w.now())
		case <-sweep.C:
			w.sweep()
		case change := <-w.stray:
			change(w.store)
		}
	}
}

func (w *writer) take(ctx context.Context, it item) {
	switch it.mark {
	case caughtUp:
		w.live = true
		w.applied(it.seq)
		w.reap(w.now())
		w.begin(it)
		w.log.Info("index is caught up", "applied", it.seq, "engines", w.engines)
	case startAll:
		w.live = false
		w.ready("reading the new stream")
		w.metrics.resets.Inc()
		w.store.clear()
		w.buckets, w.engines, w.held = make(map[fleet.BucketID]*bucket), 0, 0
		clear(w.buried)
	default:
		if w.live { // before, buckets are read one after another, and nobody may ask
			w.store.begun.Store(it.seq)
		}
		if w.fold(ctx, it); w.live {
			w.applied(it.seq)
		}
	}
}

func (w *writer) applied(seq uint64) {
	w.store.begun.Store(seq)
	w.store.applied.Store(seq)
	w.metrics.applied.Set(float64(seq))
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
			"subject", it.Subject(), "sequence", it.seq, "err", err)
	}
}
