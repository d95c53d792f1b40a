package index

import (
	"context"
	"fmt"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
)

// reread drops a bucket and folds its log again from its position, up to and including the message with sequence until.
// Meanwhile the bucket is not part of any answer, and afterwards only if the log told all of its engines.
func (w *writer) reread(ctx context.Context, id fleet.BucketID, until uint64) {
	w.metrics.holes.Inc()
	w.log.Error("a message of the event log is missing: reading the bucket again", "subject", id.Subject(), "sequence", until)
	w.store.covered.Store(w.store.covered.Load() &^ (1 << id.N))
	w.lose(id)
	if err := w.foldAgain(ctx, id, until); err != nil {
		w.log.Error("cannot read the bucket again: its engines stay unknown until their next snapshot or reset",
			"subject", id.Subject(), "err", err)
		w.lose(id)
	}
	b := w.buckets[id]
	w.miss(w.fleet.View())
	b.starting = b.starting || len(b.wanted) > 0
	w.ask(id, b)
	w.store.life.Add(1) // a Match that ran all the while saw it half done
	w.cover()
}

func (w *writer) foldAgain(ctx context.Context, id fleet.BucketID, until uint64) error {
	ctx, cancel := context.WithTimeout(ctx, rereadLimit)
	defer cancel()
	from, err := fleet.Position(ctx, w.conn, id)
	if err != nil {
		return err
	}
	w.rereading = true
	defer func() { w.rereading = false }()
	err = w.conn.Read(ctx, bus.Span{Stream: bus.Events, Subjects: []string{id.Subject()}, From: min(from, until), To: until},
		func(m bus.Message) { w.fold(ctx, decode(m)) })
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("read bucket again: %w", context.Cause(ctx))
	}
	return err
}

// lose drops what is known of a bucket's engines: a message that would tell what became of them is missing.
func (w *writer) lose(id fleet.BucketID) {
	b := w.buckets[id]
	for name := range b.snapshots {
		w.dropSnapshot(b, name)
	}
	for name := range b.engines {
		w.drop(id, b, name)
	}
	b.owner = ""
}
