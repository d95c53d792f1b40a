// Package bus is how our processes talk through NATS: the event log, key-value buckets, and plain messages.
//
// It knows names of streams, subjects and buckets, the fenced write of the event log, and how to go on after NATS was
// away. It does not know what a message means: bytes in, bytes out. It is the only importer of nats.go.
package bus

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	reconnectWait = 200 * time.Millisecond
	pingInterval  = 3 * time.Second // two unanswered pings end a connection
	callTimeout   = 5 * time.Second // one request to JetStream
	maxUnacked    = 4096            // Append: messages without an acknowledgement
)

// Options of Connect. The zero value is usable.
type Options struct {
	Name      string       // shown by the server
	Log       *slog.Logger // connection lost and regained; nil is slog.Default()
	InProcess InProcess    // dial this instead of the URL
}

// InProcess is a server in this process that may have no listener.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Conn is a connection to NATS. It reconnects for ever. All methods may be called from any goroutine.
type Conn struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	log  *slog.Logger
	link link

	mu      sync.Mutex
	ensured *Sizes // what Ensure made, to make it again after NATS lost its store
}

// Connect dials url and tries again until it is connected or ctx ends. Later losses of the connection are repaired in
// the background. After them whatever Ensure created is created again where it is missing.
func Connect(ctx context.Context, url string, o Options) (*Conn, error) {
	c := &Conn{log: o.Log}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.link.init()
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait/4, reconnectWait/4),
		nats.PingInterval(pingInterval),
		nats.ReconnectBufSize(-1), // nothing is kept to be sent later: stale words are worse than none
		nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(c.lost),
		nats.ReconnectHandler(c.regained),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.log.Warn("NATS reports an error", "err", err)
		}),
	}
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(o.InProcess))
	}
	nc, err := dial(ctx, url, c.log, opts)
	if err != nil {
		return nil, err
	}
	c.nc = nc
	c.js, err = jetstream.New(nc,
		jetstream.WithDefaultTimeout(callTimeout),
		jetstream.WithPublishAsyncMaxPending(maxUnacked),
		jetstream.WithPublishAsyncTimeout(callTimeout))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	c.link.up()
	return c, nil
}

func dial(ctx context.Context, url string, log *slog.Logger, opts []nats.Option) (*nats.Conn, error) {
	for try := 0; ; try++ {
		nc, err := nats.Connect(url, opts...)
		if err == nil {
			return nc, nil
		}
		if try == 0 {
			log.Warn("NATS is not there yet", "url", url, "err", err)
		}
		if sleep(ctx, reconnectWait) != nil {
			return nil, fmt.Errorf("connect to %s: %w", url, err)
		}
	}
}

// Close ends the connection; what runs on it returns.
func (c *Conn) Close() {
	c.link.down()
	c.nc.Close()
}

// Up says whether NATS can be reached now.
func (c *Conn) Up() bool { return c.nc.IsConnected() && c.link.session().Err() == nil }

func (c *Conn) lost(_ *nats.Conn, err error) {
	c.link.down()
	if err != nil {
		c.log.Warn("NATS went away", "err", err)
	}
}

func (c *Conn) regained(nc *nats.Conn) {
	c.log.Info("NATS is back", "url", nc.ConnectedUrlRedacted())
	c.link.up()
	c.mu.Lock()
	sizes := c.ensured
	c.mu.Unlock()
	if sizes == nil {
		return
	}
	go c.ensureAgain(c.link.session(), *sizes)
}

// ensureAgain makes what NATS may have lost, as soon as it lets us, while the connection lasts.
func (c *Conn) ensureAgain(session context.Context, sizes Sizes) {
	for n := 0; session.Err() == nil; n++ {
		ctx, cancel := c.attempt(session, 4*callTimeout)
		err := c.Ensure(ctx, sizes)
		cancel()
		if err == nil {
			return
		}
		if n == 4 {
			c.log.Warn("cannot ensure streams after nats came back", "err", err)
		}
		_ = sleep(session, backoff(n))
	}
}

// attempt bounds one call: it ends with ctx, after d, or when the connection that exists now is lost.
func (c *Conn) attempt(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	a, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(c.link.session(), cancel)
	return a, func() { stop(); cancel() }
}

// pause waits between two tries: for d, and while NATS is away until it is back.
func (c *Conn) pause(ctx context.Context, d time.Duration) error {
	if err := sleep(ctx, d); err != nil {
		return err
	}
	_, err := c.link.wait(ctx)
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// backoff is the time to wait after the n-th failure in a row.
func backoff(n int) time.Duration { return min(10*time.Millisecond<<min(n, 7), time.Second) }

// LocalIP is the address of this host as NATS sees it; an error while NATS is away or in this process.
func (c *Conn) LocalIP() (net.IP, error) {
	ip, err := c.nc.GetClientIP()
	if err != nil {
		return nil, fmt.Errorf("ask nats for our address: %w", err)
	}
	return ip, nil
}
