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
func peek(resp *http.Response) error {
	if resp.StatusCode < http.StatusOK {
		resp.Body.Close()
		return fmt.Errorf("ask an engine: status %d", resp.StatusCode)
	}
	if !isEvents(resp) || resp.StatusCode != http.StatusOK {
		return nil
	}
	first := make([]byte, 512)
	n, err := resp.Body.Read(first)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		resp.Body.Close()
		return err
	}
	resp.Body = &peeked{ReadCloser: resp.Body, first: first[:n], err: err}
	return nil
}

// peeked is a body whose first bytes have been read.
type peeked struct {
	io.ReadCloser
	first []byte
	err   error // after them
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.ReadCloser.Read(b)
}
