package hop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

var errWrongAnswer = errors.New("the answer is not the engine's, byte for byte")

// task is one request of a measurement.
type task struct {
	payload *payload
	way     string
	number  uint64
	chunks  int
	gap     time.Duration // between chunks
}

// id is the request's id, by which its record is found.
func (t *task) id() string { return fmt.Sprintf("bench-%016x", t.number) }

// connection is one kept connection of a client, without a pool or goroutines, so that the client adds little. It
// belongs to one goroutine.
type connection struct {
	address string
	conn    net.Conn
	in      *bufio.Reader
	buf     []byte
}

func newConnection(address string) *connection {
	return &connection{address: address, buf: make([]byte, 32<<10)}
}

func (c *connection) close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is left to send
	}
}

// do sends a request and checks the whole answer. first is when the first byte of the answer's body was there.
func (c *connection) do(t *task) (first time.Time, err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.address); err != nil {
			c.conn = nil
			return first, err
		}
		c.in = bufio.NewReaderSize(c.conn, 32<<10)
	}
	first, err = c.exchange(t)
	if err != nil {
		c.close()
		c.conn = nil
	}
	return first, err
}

func (c *connection) exchange(t *task) (first time.Time, err error) {
	head := fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Accept: */*\r\nUser-Agent: OpenAI/Python 1.99\r\nX-Request-Id: %s\r\n%s: %s\r\n%s: %s\r\n%s: %d\r\n%s: %d\r\n%s: %d\r\n\r\n",
		c.address, len(t.payload.plain), t.id(), bodyHeader, t.payload.name, wayHeader, t.way, numberHeader, t.number,
		chunksHeader, t.chunks, gapHeader, t.gap.Microseconds())
	parts := net.Buffers{head, t.payload.plain}
	if err := c.conn.SetDeadline(time.Now().Add(patience + time.Duration(t.chunks)*t.gap)); err != nil {
		return first, err
	}
	if _, err := parts.WriteTo(c.conn); err != nil {
		return first, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return first, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return first, fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	return c.compare(resp.Body, bytes.Join(answer(t.number, t.chunks, false), nil))
}

// compare reads an answer to its end.
func (c *connection) compare(in io.Reader, want []byte) (first time.Time, err error) {
	for {
		n, err := in.Read(c.buf)
		if n > 0 && first.IsZero() {
			first = time.Now()
		}
		if n > len(want) || !bytes.Equal(c.buf[:n], want[:n]) {
			return first, errWrongAnswer
		}
		want = want[n:]
		if errors.Is(err, io.EOF) && len(want) == 0 {
			return first, nil
		}
		if err != nil {
			return first, fmt.Errorf("%d bytes before the end of the answer: %w", len(want), err)
		}
	}
}
