package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Send publishes to whoever listens now. It never blocks; while NATS is away it fails.
func (c *Conn) Send(subject string, data []byte) error {
	if err := c.nc.Publish(subject, data); err != nil {
		return fmt.Errorf("send to %s: %w", subject, err)
	}
	return nil
}

// Listen calls fn, from one goroutine, with what is sent to subject (wildcards allowed), also after reconnects. What a
// slow fn cannot take is dropped by the client. stop ends it; calls in progress may still finish.
func (c *Conn) Listen(subject string, fn func(subject string, data []byte)) (stop func(), err error) {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) { fn(m.Subject, m.Data) })
	if err != nil {
		return nil, fmt.Errorf("listen to %s: %w", subject, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// Append adds data to the stream that keeps subject, without waiting for the acknowledgement. It never blocks: with
// too many unacknowledged messages it returns ErrFull, and while NATS is away it fails. A message may still be lost
// when the connection is; use a Writer where that matters.
func (c *Conn) Append(_ context.Context, subject string, data []byte) error {
	if c.js.PublishAsyncPending() >= maxUnacked {
		return fmt.Errorf("append to %s: %w", subject, ErrFull)
	}
	if _, err := c.js.PublishAsync(subject, data); err != nil {
		return fmt.Errorf("append to %s: %w", subject, err)
	}
	return nil
}
