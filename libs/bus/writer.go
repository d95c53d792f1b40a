package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/zeebo/xxh3"
)

// Writer appends to one subject of a stream, alone: each message names the one that it follows, so the server refuses
// a writer that was superseded. One message is in flight at a time; the acknowledgement is the clock.
//
// A new Writer expects an empty subject; call Claim where others may have written. Methods are serialised.
type Writer struct {
	c       *Conn
	subject string

	mu     sync.Mutex
	last   uint64       // sequence of the last acknowledged message, 0 if none
	sum    xxh3.Uint128 // of its data
	fenced bool
	doubt  bool // a claim was sent and not acknowledged
}

// Writer returns a writer of subject. It sends nothing.
func (c *Conn) Writer(subject string) *Writer {
	return &Writer{c: c, subject: subject}
}

// Claim appends data whatever was written before, so that every other writer of the subject is fenced. It blocks, and
// tries again while NATS is away, until ctx ends. data may be in the stream twice, where another claim came between.
func (w *Writer) Claim(ctx context.Context, data []byte) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.send(ctx, data, w.tryClaim)
}

// Publish appends data after the writer's own last message. It blocks, and tries again while NATS is away, until it is
// acknowledged, refused for good, or ctx ends. data is in the stream at most once. Errors: ErrFenced, also from then
// on until the next Claim; ctx's; what is wrong with data.
func (w *Writer) Publish(ctx context.Context, data []byte) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fenced {
		return 0, fmt.Errorf("publish to %s: %w", w.subject, ErrFenced)
	}
	return w.send(ctx, data, w.tryPublish)
}

func (w *Writer) send(ctx context.Context, data []byte, try func(context.Context, []byte) (uint64, error)) (uint64, error) {
	for n := 0; ; n++ {
		seq, err := try(ctx, data)
		if err == nil {
			w.last, w.sum, w.fenced, w.doubt = seq, xxh3.Hash128(data), false, false
			return seq, nil
		}
		if permanent(err) {
			return 0, fmt.Errorf("publish to %s: %w", w.subject, err)
		}
		if n == 4 {
			w.c.log.Warn("cannot publish yet", "subject", w.subject, "err", err)
		}
		if ended := w.c.pause(ctx, backoff(n)); ended != nil {
			return 0, fmt.Errorf("publish to %s: %w (%w)", w.subject, ended, err)
		}
	}
}

// tryPublish sends once. Without an acknowledgement it looks what the subject's last message is (event-log.md 4).
func (w *Writer) tryPublish(ctx context.Context, data []byte) (uint64, error) {
	seq, failure := w.put(ctx, data, jetstream.WithExpectLastSequencePerSubject(w.last))
	if failure == nil || permanent(failure) {
		return seq, failure
	}
	last, found, err := w.lastMessage(ctx)
	switch {
	case err != nil:
		return 0, errors.Join(failure, err)
	case !found:
		w.last, w.sum = 0, xxh3.Uint128{}
		return 0, failure
	case last.Sequence > w.last && string(last.Data) == string(data):
		return last.Sequence, nil
	case last.Sequence == w.last && xxh3.Hash128(last.Data) == w.sum:
		return 0, failure
	}
	w.fenced = true
	return 0, ErrFenced
}

// tryClaim sends once; after a try without an acknowledgement it looks first.
func (w *Writer) tryClaim(ctx context.Context, data []byte) (uint64, error) {
	if w.doubt {
		last, found, err := w.lastMessage(ctx)
		if err != nil {
			return 0, err
		}
		if found && last.Sequence > w.last && string(last.Data) == string(data) {
			return last.Sequence, nil
		}
	}
	w.doubt = true
	return w.put(ctx, data)
}

func (w *Writer) put(ctx context.Context, data []byte, opts ...jetstream.PublishOpt) (uint64, error) {
	ctx, cancel := w.c.attempt(ctx, callTimeout)
	defer cancel()
	ack, err := w.c.js.Publish(ctx, w.subject, data, append(opts, jetstream.WithRetryAttempts(0))...)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

func (w *Writer) lastMessage(ctx context.Context) (*jetstream.RawStreamMsg, bool, error) {
	ctx, cancel := w.c.attempt(ctx, callTimeout)
	defer cancel()
	s, err := w.c.js.Stream(ctx, streamOf(w.subject))
	if err != nil {
		return nil, false, fmt.Errorf("look up stream: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, w.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read last message: %w", err)
	}
	return m, true, nil
}

// permanent says that sending the same message again cannot succeed.
func permanent(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) ||
		errors.Is(err, nats.ErrInvalidConnection) || errors.Is(err, nats.ErrConnectionClosed) ||
		errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum)
}
