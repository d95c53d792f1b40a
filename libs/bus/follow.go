package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	readAhead      = 512      // messages, and
	readAheadBytes = 16 << 20 // bytes, that a reader asks the server for in advance
	readExpiry     = 10 * time.Second
	readHeartbeat  = 2 * time.Second // twice this without a sign from the server ends a consumer
	readIdle       = 2 * time.Second // without a message, before a reader with an end asks whether there is more
	consumerLinger = 30 * time.Second
)

var errDisorder = errors.New("messages are missing")

// Message is one message of a stream.
type Message struct {
	Subject string
	Seq     uint64
	Data    []byte // belongs to the receiver
	Time    time.Time
	Pending uint64 // messages on the reader's subjects that were stored after this one, when it was sent
}

// Span is a stretch of a stream.
type Span struct {
	Stream   string
	Subjects []string  // wildcards allowed; none means all
	From     uint64    // sequence; 0 is the beginning
	Since    time.Time // without From: what was stored then or later; zero is the beginning
	To       uint64    // sequence, inclusive; 0 is without end
	Created  time.Time // when the stream was created, as StreamState tells; zero is whenever
}

// Follow is Read without end.
func (c *Conn) Follow(ctx context.Context, stream string, subjects []string, from uint64, fn func(Message)) error {
	return c.Read(ctx, Span{Stream: stream, Subjects: subjects, From: from}, fn)
}

// Read calls fn, from one goroutine, with each message of the span on one of its subjects, in order, without gaps or
// repetitions, and across losses of the connection. Messages that the stream has discarded are skipped silently.
//
// It returns nil when all were handed over or ctx ends, and ErrStreamReset when the stream is another than before or
// than it should be, or ends before the reader's position; then nothing that was read before can be relied on.
func (c *Conn) Read(ctx context.Context, s Span, fn func(Message)) error {
	if s.To != 0 && s.From > s.To {
		return nil
	}
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := reading{Span: s, conn: c, fn: fn, next: max(s.From, 1), finish: cancel}
	for n := 0; ; n++ {
		before := r.next
		err := r.once(ctx)
		if errors.Is(err, ErrStreamReset) {
			return err
		}
		if r.next > before {
			n = 0
		}
		if r.done || outer.Err() != nil {
			return nil
		}
		if n == 4 {
			c.log.Warn("cannot read the stream yet", "stream", s.Stream, "from", r.next, "err", err)
		}
		if c.pause(ctx, backoff(n)) != nil {
			return nil
		}
	}
}

// reading is a Read under way, over its consumers.
type reading struct {
	Span
	conn   *Conn
	fn     func(Message)
	next   uint64 // sequence of the next message, at least
	done   bool
	finish func()      // ends the present consumer, and all
	idle   *time.Timer // ends the present consumer of a Span with an end
}

// once reads through one consumer. What retention takes away while it is read never comes, so a Span with an end asks
// anew, where nothing comes, what is left.
func (r *reading) once(ctx context.Context) error {
	if r.To != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		r.idle = time.AfterFunc(readIdle, cancel)
		defer r.idle.Stop()
	}
	cfg := orderedFrom(r.Subjects, r.next)
	if r.next == 1 && !r.Since.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &r.Since
	}
	return r.conn.consume(ctx, r.Stream, cfg, func(pending uint64) error { return r.begin(ctx, pending) }, r.each)
}

// begin is called once the consumer exists: from then on the server ends it with the stream.
func (r *reading) begin(ctx context.Context, pending uint64) error {
	info, err := r.conn.streamInfo(ctx, r.Stream)
	if err != nil {
		return err
	}
	if info.State.LastSeq < r.next-1 || (!r.Created.IsZero() && !info.Created.Equal(r.Created)) {
		return fmt.Errorf("read %s from %d: %w", r.Stream, r.next, ErrStreamReset)
	}
	r.Created = info.Created
	if r.To != 0 && pending == 0 {
		r.end()
	}
	return nil
}

func (r *reading) each(m jetstream.Msg, meta *jetstream.MsgMetadata) {
	seq := meta.Sequence.Stream
	if r.To != 0 { // what fn takes is not idle time
		if r.done || !r.idle.Stop() {
			return // the consumer has ended
		}
		defer r.idle.Reset(readIdle)
	}
	if r.To == 0 || seq <= r.To {
		r.next = seq + 1
		r.fn(Message{Subject: m.Subject(), Seq: seq, Data: m.Data(), Time: meta.Timestamp, Pending: meta.NumPending})
	}
	if r.To != 0 && (seq >= r.To || meta.NumPending == 0) {
		r.end()
	}
}

func (r *reading) end() {
	r.done = true
	r.finish()
}

// Pending counts the messages that Follow would find at once.
func (c *Conn) Pending(ctx context.Context, stream string, subjects []string, from uint64) (uint64, error) {
	ctx, cancel := c.attempt(ctx, callTimeout)
	defer cancel()
	consumer, err := c.js.CreateConsumer(ctx, stream, orderedFrom(subjects, max(from, 1)))
	if err != nil {
		return 0, fmt.Errorf("count messages of %s: %w", stream, err)
	}
	info := consumer.CachedInfo()
	c.forget(stream, info.Name)
	return info.NumPending, nil
}

func orderedFrom(subjects []string, from uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    from,
		FilterSubjects: subjects,
	}
}

// consume reads through a consumer of its own until ctx ends, the connection is lost, or anything is amiss: order is
// checked by the consumer's own count. Why by hand, and not jetstream.OrderedConsumer: that one starts anew without
// telling, and then nobody asks whether the stream is still the same. begin gets the number of messages to come.
func (c *Conn) consume(ctx context.Context, stream string, cfg jetstream.ConsumerConfig,
	begin func(pending uint64) error, each func(jetstream.Msg, *jetstream.MsgMetadata)) error {
	session, err := c.link.wait(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(session, cancel)()

	cfg.AckPolicy, cfg.MemoryStorage, cfg.Replicas, cfg.InactiveThreshold = jetstream.AckNonePolicy, true, 1, consumerLinger
	create, done := context.WithTimeout(ctx, callTimeout)
	consumer, err := c.js.CreateConsumer(create, stream, cfg)
	done()
	if err != nil {
		return fmt.Errorf("create consumer of %s: %w", stream, err)
	}
	defer c.forget(stream, consumer.CachedInfo().Name)
	if err := begin(consumer.CachedInfo().NumPending); err != nil {
		return err
	}
	messages, err := consumer.Messages(
		jetstream.PullMaxMessagesWithBytesLimit(readAhead, readAheadBytes), jetstream.PullExpiry(readExpiry),
		jetstream.PullHeartbeat(readHeartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	defer messages.Stop()
	for count := uint64(1); ; count++ {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if meta.Sequence.Consumer != count {
			return fmt.Errorf("read %s: %w", stream, errDisorder)
		}
		each(m, meta)
	}
}

// forget deletes a consumer, without waiting long: the server forgets it anyway after consumerLinger.
func (c *Conn) forget(stream, consumer string) {
	if !c.Up() {
		return
	}
	ctx, cancel := c.attempt(context.Background(), time.Second)
	defer cancel()
	_ = c.js.DeleteConsumer(ctx, stream, consumer)
}
