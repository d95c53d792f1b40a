package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"syscall"
	"time"
)

const (
	readBytes  = 16 << 10
	mostHead   = 1 << 20               // of an answer, its informational ones included
	aloneBytes = 64 << 10              // a body up to here is written before the answer is read
	lateAnswer = time.Second           // after an engine has stopped to read
	writeWait  = 50 * time.Millisecond // for a writer to say that it is done
)

var errHead = errors.New("head of the answer is too long, or of a protocol that nobody asked for")

// conn is one connection. It belongs to the exchange that has taken it, but that its context may close it.
type conn struct {
	t       *Transport
	address string
	net     net.Conn
	raw     syscall.RawConn // nil where it has none
	in      *bufio.Reader
	room    int64 // bytes that may still be read
	used    bool  // for a request before
	since   time.Time

	ctx   context.Context // of the request; ctx and stop change with each
	stop  func() bool     // no longer close it when ctx ends; false where that has begun
	wrote chan error      // of a body that is written beside reading; nil for another

	state int // of the latest look: see open
	look  func(fd uintptr) bool
}

func newConn(t *Transport, address string, n net.Conn) *conn {
	c := &conn{t: t, address: address, net: n}
	c.in = bufio.NewReaderSize(c, readBytes)
	if s, ok := n.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn() // an error is a closed one, which the first write finds
	}
	c.look = func(fd uintptr) bool {
		var one [1]byte
		var err error
		if c.state, err = syscall.Read(int(fd), one[:]); errors.Is(err, syscall.EAGAIN) {
			c.state = -1
		} else if err != nil {
			c.state = 0
		}
		return true
	}
	return c
}

// open says that an idle connection was neither closed by the engine nor spoken on: by one read that does not wait.
func (c *conn) open() bool {
	if c.raw == nil {
		return true
	}
	err := c.raw.Read(c.look)
	return err == nil && c.state < 0
}

// Read reads for c.in, no more than there is room for.
func (c *conn) Read(p []byte) (int, error) {
	if c.room <= 0 {
		return 0, errHead
	}
	n, err := c.net.Read(p[:min(int64(len(p)), c.room)])
	c.room -= int64(n)
	return n, err
}

func (c *conn) close() { _ = c.net.Close() }

// end gives the connection up, after an answer, or after a failure.
func (c *conn) end(keep bool) {
	stopped := c.stop()
	keep = keep && c.written()
	c.wrote = nil
	if keep && stopped && c.in.Buffered() == 0 {
		c.t.keep(c)
		return
	}
	c.close()
}

// written says whether the request has been written whole. An engine that has answered has mostly read it all, but the
// goroutine that wrote may not have come to say so.
func (c *conn) written() bool {
	if c.wrote == nil {
		return true
	}
	late := time.NewTimer(writeWait)
	defer late.Stop()
	select {
	case err := <-c.wrote:
		return err == nil
	case <-late.C: // closing ends it
		return false
	}
}

// reason is why an exchange failed.
func (c *conn) reason(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	return err
}

// exchange sends a request and reads the head of its answer. It calls meanwhile once, unless it fails with errUnsent.
func (c *conn) exchange(r *http.Request, meanwhile func()) (*http.Response, error) {
	c.ctx = r.Context()
	c.stop = context.AfterFunc(c.ctx, c.close)
	sent := c.send(r)
	if errors.Is(sent, errUnsent) {
		c.end(false)
		return nil, fmt.Errorf("ask an engine: %w", sent)
	}
	meanwhile()
	resp, err := c.head(r)
	if err != nil {
		c.end(false)
		return nil, c.reason(fmt.Errorf("ask an engine: %w", errors.Join(err, sent)))
	}
	body := &answer{Reader: resp.Body, c: c, keep: !resp.Close && sent == nil}
	if resp.Body == http.NoBody || resp.ContentLength == 0 || r.Method == http.MethodHead {
		body.err = io.EOF
		c.end(body.keep)
	}
	resp.Body = body
	return resp, nil
}

// head reads the head of the final answer.
func (c *conn) head(r *http.Request) (*http.Response, error) {
	c.room = mostHead
	for {
		resp, err := http.ReadResponse(c.in, r)
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errHead
		case resp.StatusCode < 100 || resp.StatusCode > 199:
			c.room = math.MaxInt64
			return resp, nil
		}
	}
}

// send writes a request: a small body in one write with its head, a large one beside what follows, since an engine may
// answer before it has read all. What goes wrong once something is written does not end the exchange: the engine may
// have said why.
func (c *conn) send(r *http.Request) error {
	h, _ := c.t.heads.Get().(*head)
	if h == nil {
		h = new(head)
	}
	h.start(r, c.net)
	if r.ContentLength <= aloneBytes {
		return c.sent(h, r)
	}
	c.wrote = make(chan error, 1)
	wrote := c.wrote
	go func() { wrote <- c.sent(h, r) }()
	return nil
}

// sent writes what send began, and closes the request's body.
func (c *conn) sent(h *head, r *http.Request) error {
	err := h.whole(r)
	closeBody(r)
	began := h.began
	if h.out = nil; h.buf.Cap() <= keptHead {
		c.t.heads.Put(h)
	}
	if err == nil || !began {
		return err
	}
	_ = c.net.SetReadDeadline(time.Now().Add(lateAnswer)) // the connection is not used again
	return err
}
