package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// readers is how many buckets are read at a time while catching up. They decode while the writer applies.
const readers = 4

// item is what the reader hands to the writer: a message, or a mark.
type item struct {
	fleet.BucketID
	seq     uint64 // of a message; of caughtUp: of the last one in the stream
	message *eventsv1.Message
	err     error // why there is no message
	mark    mark
	view    *fleet.View // of caughtUp: the fleet when the stream ended there
}

type mark int

const (
	none     mark = iota
	caughtUp      // all that was in the stream has been handed over
	startAll      // the stream is another: start from empty
)

// reader reads the stream and decodes, so that the writer need not.
type reader struct {
	conn    *bus.Conn
	view    func() *fleet.View
	owned   uint64
	metrics *metrics
	log     *slog.Logger
	out     chan<- item
}

// run reads until ctx ends. When the stream turns out to be another, it says so and starts over.
func (r *reader) run(ctx context.Context) error {
	for {
		err := r.readAll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.log.Error("the event stream was created anew: starting from empty", "err", err)
		r.send(ctx, item{mark: startAll})
	}
}

// readAll catches up and then follows, until ctx ends or the stream is another.
func (r *reader) readAll(ctx context.Context) error {
	begun, err := r.state(ctx)
	if err != nil {
		return err
	}
	if err := r.readBuckets(ctx, begun); err != nil {
		return err
	}
	// A record of this view was written after its engine's reset: what the stream holds by then must tell the engine.
	view := r.view()
	now, err := r.state(ctx)
	if err != nil {
		return err
	}
	rest := bus.Span{Stream: bus.Events, Subjects: subjectsOf(r.owned), From: begun.Last + 1, To: now.Last, Created: begun.Created}
	if now.Last > begun.Last {
		if err := r.read(ctx, rest); err != nil {
			return err
		}
	}
	r.send(ctx, item{mark: caughtUp, seq: now.Last, view: view})
	rest.From, rest.To = max(begun.Last, now.Last)+1, 0
	return r.read(ctx, rest)
}

func (r *reader) state(ctx context.Context) (s bus.StreamState, err error) {
	err = r.insist(ctx, "ask for the state of the event stream", func() error {
		s, err = r.conn.StreamState(ctx, bus.Events)
		return err
	})
	return s, err
}

// readBuckets reads each bucket from its own position to the end that the stream had.
func (r *reader) readBuckets(ctx context.Context, stream bus.StreamState) error {
	var ids []fleet.BucketID
	err := r.insist(ctx, "list the buckets of the event stream", func() (err error) {
		ids, err = r.buckets(ctx)
		return err
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, id := range ids {
		g.Go(func() error {
			var from uint64
			err := r.insist(ctx, "look up a bucket's position", func() (err error) {
				from, err = fleet.Position(ctx, r.conn, id)
				return err
			})
			if err != nil {
				return err
			}
			if from = r.reachable(id, from, stream); from == 0 {
				return nil
			}
			return r.read(ctx, bus.Span{Stream: bus.Events, Subjects: []string{id.Subject()}, From: from, To: stream.Last, Created: stream.Created})
		})
	}
	return g.Wait()
}

// buckets lists the owned buckets that have messages, in order.
func (r *reader) buckets(ctx context.Context) ([]fleet.BucketID, error) {
	subjects, err := r.conn.Subjects(ctx, bus.Events, bus.AllEvents)
	var ids []fleet.BucketID
	for subject := range subjects {
		if pool, n, ok := bus.ParseEventSubject(subject); ok && r.owned>>n&1 == 1 {
			ids = append(ids, fleet.BucketID{Pool: pool, N: n})
		}
	}
	slices.SortFunc(ids, func(a, b fleet.BucketID) int { return cmp.Or(cmp.Compare(a.N, b.N), cmp.Compare(a.Pool, b.Pool)) })
	return ids, err
}

// reachable is where to begin to read a bucket whose position this is; 0 is nowhere.
func (r *reader) reachable(id fleet.BucketID, position uint64, stream bus.StreamState) uint64 {
	switch {
	case stream.Last == 0:
		return 0
	case position > stream.Last: // of a stream that was here before this one
		r.log.Error("a bucket's position lies behind the end of the event stream: reading all of it",
			"subject", id.Subject(), "position", position, "last", stream.Last)
		return 1
	case position < stream.First && stream.First > 1:
		r.metrics.truncated.Inc()
		r.log.Error("the event stream no longer reaches back to a bucket's position: engines whose beginning is lost are asked for",
			"subject", id.Subject(), "position", position, "first", stream.First)
	}
	return position
}

func (r *reader) read(ctx context.Context, s bus.Span) error {
	return r.conn.Read(ctx, s, func(m bus.Message) { r.send(ctx, decode(m)) })
}

// insist tries until there is no error, or ctx ends.
func (r *reader) insist(ctx context.Context, what string, try func() error) error {
	for first := true; ; first = false {
		err := try()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if first {
			r.log.Warn("cannot read the event stream yet", "step", what, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
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
	if it.Pool, it.N, ok = bus.ParseEventSubject(m.Subject); !ok {
		it.err = fmt.Errorf("subject %q names no bucket", m.Subject)
		return it
	}
	it.message = new(eventsv1.Message)
	if err := proto.Unmarshal(m.Data, it.message); err != nil {
		it.message, it.err = nil, fmt.Errorf("decode: %w", err)
	}
	return it
}
