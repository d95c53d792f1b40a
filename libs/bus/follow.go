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

// Follow calls fn, from one goroutine, with each message of stream from sequence from on whose subject is one of
// subjects (wildcards allowed; none means all), in order, without gaps or repetitions, and across losses of the
// connection. Messages that the stream has discarded are skipped silently.
//
// It returns nil when ctx ends, and ErrStreamReset when the stream was created anew or ends before the reader's
// position; then nothing that was read before can be relied on.
func (c *Conn) Follow(ctx context.Context, stream string, subjects []string, from uint64, fn func(Message)) error {
	next, created := max(from, 1), time.Time{}
	read := func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
		next = meta.Sequence.Stream + 1
		fn(Message{Subject: m.Subject(), Seq: meta.Sequence.Stream, Data: m.Data(), Time: meta.Timestamp, Pending: meta.NumPending})
	}
	// Asked once the consumer exists: from then on the server ends it with the stream.
	same := func(uint64) error {
		info, err := c.streamInfo(ctx, stream)
		if err != nil {
			return err
		}
		if info.State.LastSeq < next-1 || (!created.IsZero() && !info.Created.Equal(created)) {
			return fmt.Errorf("follow %s from %d: %w", stream, next, ErrStreamReset)
		}
		created = info.Created
		return nil
	}
	for n := 0; ; n++ {
		before := next
		err := c.consume(ctx, stream, orderedFrom(subjects, next), same, read)
		if errors.Is(err, ErrStreamReset) {
			return err
		}
		if next > before {
			n = 0
		}
		if ctx.Err() != nil {
			return nil
		}
		if n == 4 {
			c.log.Warn("cannot read the stream yet", "stream", stream, "from", next, "err", err)
		}
		if c.pause(ctx, backoff(n)) != nil {
			return nil
		}
	}
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
