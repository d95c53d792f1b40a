package router

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/internal/headers"
)

const (
	maxRead    = 4 << 20  // of an answer that is kept to read its usage; a longer one passes all the same
	streamRead = 32 << 10 // bytes at a time

	engineHeader = "X-Warmpath-Engine"
)

// relay passes an engine's answer to the client as it comes.
func (x *exchange) relay(w http.ResponseWriter, r *http.Request, resp *http.Response) {
	defer resp.Body.Close()
	headers.Answer(w.Header(), resp.Header)
	w.Header().Set(engineHeader, x.line.Chosen)
	x.status, x.outcome = resp.StatusCode, outcomeOK
	if resp.StatusCode >= 400 {
		x.outcome = outcomeRefused
	}
	events := isEvents(resp)
	if events || x.apart.usage != nil {
		w.Header().Del("Content-Length")
	}
	w.WriteHeader(resp.StatusCode)
	out := &client{w: w, control: http.NewResponseController(w)}
	var err error
	switch {
	case events:
		x.stream.Withhold, x.stream.Prefill = x.q.stream && !x.q.ownsUse, x.apart.usage
		err = x.events(out, resp.Body)
	case x.apart.usage != nil:
		err = x.corrected(out, resp.Body)
	default:
		err = x.whole(out, resp.Body)
	}
	switch {
	case err == nil:
	case out.failed || r.Context().Err() != nil:
		x.outcome = outcomeCancelled
	default:
		x.lost(out, events)
	}
}

// lost ends an answer whose engine failed in the middle. A stream gets an error event; any other answer is cut, so
// that the client cannot take it for whole.
func (x *exchange) lost(out *client, events bool) {
	x.outcome = outcomeLost
	x.failed("lost")
	if !events {
		panic(http.ErrAbortHandler)
	}
	e := openai.Error{Status: http.StatusBadGateway, Code: "engine_lost", Message: "the engine failed in the middle of the answer"}
	event := e.Event()
	if x.stream.Drop() { // half an event would swallow ours
		event = append([]byte("\n\n"), event...)
	}
	_ = out.write(event) // the client may be gone too
}

// client writes to the client. failed says that an error was the client's.
type client struct {
	w       http.ResponseWriter
	control *http.ResponseController
	began   bool // something has been flushed
	waiting bool // something has not
	failed  bool
}

// put writes what flush will send.
func (c *client) put(p []byte) error {
	_, err := c.w.Write(p)
	c.waiting = true
	c.failed = c.failed || err != nil
	return err
}

// flush sends what was put.
func (c *client) flush() error {
	if !c.waiting {
		return nil
	}
	err := c.control.Flush()
	c.began, c.waiting = true, false
	c.failed = c.failed || err != nil
	return err
}

// pass sends what was put, as one piece, where the read that brought it ended with err. The last piece of an answer goes
// with the answer's end, which the server sends at once; the first waits for nothing.
func (c *client) pass(err error) error {
	if errors.Is(err, io.EOF) && c.began {
		return nil
	}
	return c.flush()
}

func (c *client) write(p []byte) error {
	if err := c.put(p); err != nil {
		return err
	}
	return c.flush()
}

// chunk borrows a read buffer.
func (rt *router) chunk() *[]byte {
	if p, ok := rt.chunks.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, streamRead)
	return &p
}

// started notes the first byte of the answer. That of a refusal is none: nothing was computed, so its time says nothing
// of the engine's speed.
func (x *exchange) started(now time.Time) {
	if x.status >= http.StatusBadRequest {
		return
	}
	if x.first.IsZero() {
		x.first = now
		x.res.FirstByte(now)
		x.pool.door.Wake()
	}
	x.last = now
}

// events passes a stream of events through, but for the usage chunk that only we asked for.
func (x *exchange) events(out *client, in io.Reader) error {
	buf := x.rt.chunk()
	defer x.rt.chunks.Put(buf)
	defer func() {
		if x.stream.HasUsage {
			x.usage = &x.stream.Usage
		}
	}()
	for {
		n, err := in.Read(*buf)
		if n > 0 {
			if failed := x.piece(out, (*buf)[:n], err); failed != nil {
				return failed
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return x.stream.Flush(out.write)
		case err != nil:
			return err
		}
	}
}

// piece passes on what one read brought, and then counts it. end is the read's error.
func (x *exchange) piece(out *client, p []byte, end error) error {
	now, before, last := time.Now(), x.stream.Chunks, x.last
	if err := x.stream.Feed(p, out.put); err != nil {
		return err
	}
	if err := out.pass(end); err != nil {
		return err
	}
	tokens := x.stream.Chunks - before
	if x.first.IsZero() || tokens > 0 {
		x.started(now)
	}
	x.res.Token(tokens, gap(tokens, last, now))
	return nil
}

// gap is the time between two tokens that came one by one; else 0.
func gap(tokens int, last, now time.Time) time.Duration {
	if tokens != 1 || last.IsZero() {
		return 0
	}
	return now.Sub(last)
}

// whole passes any other answer, and reads its usage at the end.
func (x *exchange) whole(out *client, in io.Reader) error {
	buf := x.rt.chunk()
	defer x.rt.chunks.Put(buf)
	var kept []byte
	for {
		n, err := in.Read(*buf)
		if n > 0 {
			x.started(time.Now())
			if len(kept)+n <= maxRead {
				kept = append(kept, (*buf)[:n]...)
			}
			if failed := errors.Join(out.put((*buf)[:n]), out.pass(err)); failed != nil {
				return failed
			}
		}
		if errors.Is(err, io.EOF) {
			x.readUsage(kept)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (x *exchange) readUsage(answer []byte) {
	var b openai.Body
	if b.Scan(answer) == nil {
		if u, ok := openai.ReadUsage(&b); ok {
			x.usage = u
		}
	}
}
