// Package wire sends requests to engines over kept connections, without a goroutine of its own for either direction:
// who asks writes the request and reads the answer. net/http's Transport hands both over to others, and each hand-over
// wakes a thread, which costs more than the request (docs/performance.md). Heads and bodies are read by net/http.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"
)

const (
	idleConns = 512              // for each engine
	idleTime  = 90 * time.Second // without a request
	sweepTime = 10 * time.Second // between two looks at idle connections
)

// errUnsent says that a kept connection was found closed before anything was sent on it.
var errUnsent = errors.New("connection was closed")

// Transport is an http.RoundTripper for requests over plain HTTP/1.1 with a body of known length. The rest is Other's.
// Dial and Other must be set. Safe for concurrent use.
type Transport struct {
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Other http.RoundTripper

	heads sync.Pool // of *head

	mu       sync.Mutex
	idle     map[string][]*conn // by address, the latest used last
	sweeping bool               // a look at them is due
}

// RoundTrip is Send.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) { return t.Send(r, func() {}) }

// Send sends a request and returns when the head of its answer has come, as http.RoundTripper says: the answer's body
// must be read to its end or closed. meanwhile is called once, by the goroutine that sends, when the engine has the
// request or at least a part of it, or before its failure is returned. A request whose context ends fails with the
// context's error, reading its answer too.
func (t *Transport) Send(r *http.Request, meanwhile func()) (*http.Response, error) {
	if !plain(r) {
		meanwhile()
		return t.Other.RoundTrip(r)
	}
	for {
		c, err := t.take(r)
		if err != nil {
			closeBody(r)
			meanwhile()
			return nil, err
		}
		stale := c.used
		resp, err := c.exchange(r, meanwhile)
		if !errors.Is(err, errUnsent) {
			return resp, err
		}
		if !stale || r.GetBody == nil || r.Context().Err() != nil {
			meanwhile()
			return nil, c.reason(err)
		}
		again := *r
		if again.Body, err = r.GetBody(); err != nil {
			meanwhile()
			return nil, fmt.Errorf("ask an engine: %w", err)
		}
		r = &again
	}
}

// plain says whether a request is one for us.
func plain(r *http.Request) bool {
	sized := r.ContentLength > 0
	if r.Body == nil || r.Body == http.NoBody {
		sized = r.ContentLength == 0
	}
	return r.URL.Scheme == "http" && sized && !r.Close && r.Method != http.MethodConnect && len(r.Trailer) == 0 &&
		len(r.TransferEncoding) == 0 && r.Header.Get("Expect") == "" && r.Header.Get("Upgrade") == "" && r.Header.Get("Connection") == ""
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // nothing more can be said of it
	}
}

// take returns a kept connection that is still open, or a new one.
func (t *Transport) take(r *http.Request) (*conn, error) {
	ctx, address := r.Context(), addressOf(r)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	trace := httptrace.ContextClientTrace(ctx)
	c := t.kept(address)
	if c == nil {
		dialled, err := t.Dial(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("connect to an engine: %w", err)
		}
		c = newConn(t, address, dialled)
	}
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: c.net, Reused: c.used})
	}
	return c, nil
}

func addressOf(r *http.Request) string {
	if r.URL.Port() != "" {
		return r.URL.Host
	}
	return net.JoinHostPort(r.URL.Hostname(), "80")
}

// kept returns an open idle connection; nil is none.
func (t *Transport) kept(address string) *conn {
	for {
		t.mu.Lock()
		free := t.idle[address]
		if len(free) == 0 {
			t.mu.Unlock()
			return nil
		}
		c := free[len(free)-1]
		free[len(free)-1] = nil
		t.idle[address] = free[:len(free)-1]
		t.mu.Unlock()
		if c.open() {
			return c
		}
		c.close()
	}
}

// keep takes a connection back.
func (t *Transport) keep(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle[c.address]) >= idleConns {
		c.close()
		return
	}
	if t.idle == nil {
		t.idle = make(map[string][]*conn)
	}
	c.used, c.since = true, time.Now()
	t.idle[c.address] = append(t.idle[c.address], c)
	if !t.sweeping {
		t.sweeping = true
		time.AfterFunc(sweepTime, func() { t.sweep(time.Now()) })
	}
}

// sweep closes idle connections that are old, or that their engine has closed; it comes again while any is left.
func (t *Transport) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for address, free := range t.idle {
		left := free[:0]
		for _, c := range free {
			if now.Sub(c.since) < idleTime && c.open() {
				left = append(left, c)
			} else {
				c.close()
			}
		}
		clear(free[len(left):])
		if t.idle[address] = left; len(left) == 0 {
			delete(t.idle, address)
		}
	}
	if t.sweeping = len(t.idle) > 0; t.sweeping {
		time.AfterFunc(sweepTime, func() { t.sweep(time.Now()) })
	}
}

// CloseIdleConnections closes what is kept.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, free := range t.idle {
		for _, c := range free {
			c.close()
		}
	}
	t.idle = nil
	if other, ok := t.Other.(interface{ CloseIdleConnections() }); ok {
		other.CloseIdleConnections()
	}
}

// answer is the body of an answer. At its end the connection is kept, and closed where that is not reached. Read and
// Close belong to one goroutine; the request's context may end at any time.
type answer struct {
	io.Reader
	c    *conn
	err  error // what Read returns from now on; nil while it reads
	keep bool  // the connection may be kept after the end
}

func (a *answer) Read(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.Reader.Read(p)
	if err != nil {
		a.err = err
		if a.c.end(a.keep && errors.Is(err, io.EOF)); !errors.Is(err, io.EOF) {
			a.err = a.c.reason(err)
		}
	}
	return n, a.err
}

func (a *answer) Close() error {
	if a.err == nil {
		a.err = http.ErrBodyReadAfterClose
		a.c.end(false)
	}
	return nil
}
