package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// item is what the reader hands to the writer: a message, or a mark.
type item struct {
	bucketID
	seq     uint64
	message *eventsv1.Message
	err     error // why there is no message
	mark    mark
}

// bucketID names a bucket of a pool.
type bucketID struct {
	pool string
	n    int
}

type mark int

const (
	none     mark = iota
	caughtUp      // all that was in the stream at the start has been handed over
	startAll      // the stream is another: start from empty
)

// reader follows the stream and decodes, so that the writer need not.
type reader struct {
	conn  *bus.Conn
	owned uint64
	log   *slog.Logger
	out   chan<- item
}

// run reads until ctx ends. When the stream turns out to be another, it says so and starts over.
func (r *reader) run(ctx context.Context) error {
	for {
		err := r.readAll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, bus.ErrStreamReset) {
			r.log.Error("the event stream was created anew: starting from empty", "err", err)
			r.send(ctx, item{mark: startAll})
			continue
		}
		r.log.Warn("cannot read the event stream yet", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

func (r *reader) readAll(ctx context.Context) error {
	subjects := subjectsOf(r.owned)
	stream, err := r.conn.StreamState(ctx, bus.Events)
	if err != nil {
		return err
	}
	pending, err := r.conn.Pending(ctx, bus.Events, subjects, 1)
	if err != nil {
		return err
	}
	done := pending == 0
	if done {
		r.send(ctx, item{mark: caughtUp})
	}
	return r.conn.Follow(ctx, bus.Events, subjects, 1, func(m bus.Message) {
		r.send(ctx, decode(m))
		if !done && (m.Seq >= stream.Last || m.Pending == 0) {
			done = true
			r.send(ctx, item{mark: caughtUp})
		}
	})
}

func (r *reader) send(ctx context.Context, it item) {
	select {
	case r.out <- it:
	case <-ctx.Done():
	}
}

func decode(m bus.Message) item {
	it := item{seq: m.Seq}
	var ok bool
	if it.pool, it.n, ok = bus.ParseEventSubject(m.Subject); !ok {
		it.err = fmt.Errorf("subject %q names no bucket", m.Subject)
		return it
	}
	it.message = new(eventsv1.Message)
	if err := proto.Unmarshal(m.Data, it.message); err != nil {
		it.message, it.err = nil, fmt.Errorf("decode: %w", err)
	}
	return it
}
