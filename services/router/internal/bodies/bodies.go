// Package bodies reads the bodies of requests into pooled buffers, and bounds the bytes of all that are under way.
package bodies

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/warmpath/warmpath/libs/openai"
)

// Most is the length of the longest body that is read.
const Most = 16 << 20

const keepBytes = 1 << 20 // a larger buffer is not kept for the next request

// Pool keeps the buffers of bodies that are done with. The zero value is ready; safe for concurrent use.
type Pool struct {
	free sync.Pool // of *Body
}

// Body is one request's bytes in pooled buffers. They go back when the last user has released them: the handler, and
// each reader that the transport may still hold after an answer has come. Release and Reader are safe for concurrent
// use.
type Body struct {
	Raw  []byte // as the client sent it; nobody changes it
	Sent []byte // as engines get it; Raw itself where nothing is patched

	buf  []byte // memory of Sent, if patched
	refs atomic.Int32
	pool *Pool
}

// take returns an empty body with one user.
func (p *Pool) take() *Body {
	b, _ := p.free.Get().(*Body)
	if b == nil {
		b = &Body{pool: p}
	}
	b.refs.Store(1)
	b.Raw = b.Raw[:0]
	return b
}

func tooLarge() *openai.Error {
	return &openai.Error{
		Status: http.StatusRequestEntityTooLarge, Code: "request_too_large",
		Message: "the request body is larger than 16 MiB",
	}
}

// Read reads a request's body once; it must be released. A length that is announced is checked before anything is read, and no more
// than one step is allocated before its bytes are there.
func (p *Pool) Read(r *http.Request) (*Body, *openai.Error) {
	if r.ContentLength > Most {
		return nil, tooLarge()
	}
	b := p.take()
	in := io.LimitReader(r.Body, Most+1)
	for {
		if len(b.Raw) == cap(b.Raw) {
			b.Raw = grow(b.Raw, r.ContentLength)
		}
		n, err := in.Read(b.Raw[len(b.Raw):cap(b.Raw)])
		b.Raw = b.Raw[:len(b.Raw)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Release()
			return nil, unreadable(err)
		}
	}
	if len(b.Raw) > Most {
		b.Release()
		return nil, tooLarge()
	}
	b.Sent = b.Raw
	return b, nil
}

func unreadable(err error) *openai.Error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &openai.Error{
			Status: http.StatusRequestTimeout, Code: "request_timeout", Message: "the request body did not come in time",
		}
	}
	return &openai.Error{Status: http.StatusBadRequest, Message: "the request body could not be read"}
}

// grow doubles a buffer, or takes at once what was announced where that is within a megabyte.
func grow(p []byte, announced int64) []byte {
	want := max(2*cap(p), 4<<10)
	if announced > 0 && announced < keepBytes {
		want = max(want, int(announced)+1) // one more, to see the end without growing
	}
	bigger := make([]byte, len(p), want)
	copy(bigger, p)
	return bigger
}

// Patch makes the bytes that engines get.
func (b *Body) Patch(p *openai.Patch) {
	b.buf = p.Append(b.buf[:0])
	b.Sent = b.buf
}

// With is another body of the same pool, for an engine; it must be released too.
func (b *Body) With(p *openai.Patch) *Body {
	other := b.pool.take()
	other.Raw = p.Append(other.Raw)
	other.Sent = other.Raw
	return other
}

// Keep adds a user, who must release the body.
func (b *Body) Keep() *Body {
	b.refs.Add(1)
	return b
}

// Release ends one use; the user touches the body and its bytes no more.
func (b *Body) Release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	b.Sent = nil
	if cap(b.Raw) > keepBytes {
		b.Raw = nil
	}
	if cap(b.buf) > keepBytes {
		b.buf = nil
	}
	b.pool.free.Put(b)
}

// Reader reads Sent for one attempt; it is an io.WriterTo, which writes all at once. The transport may read and close it
// at once, and after the attempt.
func (b *Body) Reader() io.ReadCloser { return &reader{body: b.Keep()} }

type reader struct {
	mu   sync.Mutex
	body *Body // nil once closed
	at   int
}

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	if r.at == len(r.body.Sent) {
		return 0, io.EOF
	}
	n := copy(p, r.body.Sent[r.at:])
	r.at += n
	return n, nil
}

// WriteTo keeps the body until w has it; Close waits for that.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := w.Write(r.body.Sent[r.at:])
	r.at += n
	return int64(n), err
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body != nil {
		r.body.Release()
		r.body = nil
	}
	return nil
}
