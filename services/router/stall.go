package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// guard lets the ledger end the attempt that begins now when its engine is found to hang.
func (x *exchange) guard(ctx context.Context) context.Context {
	x.unguard()
	ctx, x.cancel = context.WithCancel(ctx)
	x.res.OnStall(x.cancel)
	return ctx
}

func (x *exchange) unguard() {
	if x.cancel != nil {
		x.cancel()
	}
}

// isEvents says whether an answer is a stream of events.
func isEvents(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
}

// peek waits for the first bytes of a stream, as engines send its header before they have computed anything: until then
// another engine may be asked. An answer whose status is none that HTTP knows is no answer.
func (rt *router) peek(resp *http.Response) error {
	if resp.StatusCode < http.StatusOK {
		resp.Body.Close()
		return fmt.Errorf("ask an engine: status %d", resp.StatusCode)
	}
	if !isEvents(resp) || resp.StatusCode != http.StatusOK {
		return nil
	}
	first := rt.chunk()
	n, err := resp.Body.Read(*first)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		rt.chunks.Put(first)
		resp.Body.Close()
		return err
	}
	resp.Body = &peeked{ReadCloser: resp.Body, rt: rt, buf: first, first: (*first)[:n], err: err}
	return nil
}

// peeked is a body whose first bytes have been read. It belongs to one goroutine.
type peeked struct {
	io.ReadCloser
	rt    *router
	buf   *[]byte // of first; nil once it is given back
	first []byte
	err   error // after them
}

// Read gives the first bytes with what ended them.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		if p.first = p.first[n:]; len(p.first) > 0 {
			return n, nil
		}
		p.release()
		return n, p.err
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.ReadCloser.Read(b)
}

func (p *peeked) release() {
	if p.buf != nil {
		p.rt.chunks.Put(p.buf)
		p.buf, p.first = nil, nil
	}
}

func (p *peeked) Close() error {
	p.release()
	return p.ReadCloser.Close()
}
