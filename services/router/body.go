package router

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/warmpath/warmpath/libs/openai"
)

const (
	maxBody  = 16 << 20 // a larger body is refused
	keepBody = 1 << 20  // a larger buffer is not kept for the next request
	copyBody = 32 << 10 // up to here a body is copied for its engine
)

// body is one request's bytes in pooled buffers. They go back when the last user has released them: the handler, and
// each reader that the transport may still hold after an answer has come.
type body struct {
	raw  []byte // as the client sent it
	sent []byte // as engines get it; raw itself where nothing is patched
	buf  []byte // memory of sent, if patched
	refs atomic.Int32
	pool *sync.Pool
}

func tooLarge() *openai.Error {
	return &openai.Error{
		Status: http.StatusRequestEntityTooLarge, Code: "request_too_large",
		Message: "the request body is larger than 16 MiB",
	}
}

// readBody reads a request's body once. A length that is announced is checked before anything is read, and no more
// than one step is allocated before its bytes are there.
func readBody(pool *sync.Pool, r *http.Request) (*body, *openai.Error) {
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	b, _ := pool.Get().(*body)
	if b == nil {
		b = &body{pool: pool}
	}
	b.refs.Store(1)
	b.raw = b.raw[:0]
	in := io.LimitReader(r.Body, maxBody+1)
	for {
		if len(b.raw) == cap(b.raw) {
			b.raw = grow(b.raw, r.ContentLength)
		}
		n, err := in.Read(b.raw[len(b.raw):cap(b.raw)])
		b.raw = b.raw[:len(b.raw)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.release()
			return nil, unreadable(err)
		}
	}
	if len(b.raw) > maxBody {
		b.release()
		return nil, tooLarge()
	}
	b.sent = b.raw
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
	if announced > 0 && announced < keepBody {
		want = max(want, int(announced)+1) // one more, to see the end without growing
	}
	bigger := make([]byte, len(p), want)
	copy(bigger, p)
	return bigger
}

// patch makes the bytes that engines get.
func (b *body) patch(p *openai.Patch) {
	b.buf = p.Append(b.buf[:0])
	b.sent = b.buf
}

func (b *body) release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	b.sent = nil
	if cap(b.raw) > keepBody {
		b.raw = nil
	}
	if cap(b.buf) > keepBody {
		b.buf = nil
	}
	b.pool.Put(b)
}

// reader reads b.sent for one attempt. The transport may read and close it at once, and after the attempt. A small body
// is copied: net/http then knows that it lies in memory and sends it in one write with the headers, which saves the
// router a system call and the engine a wake-up.
func (b *body) reader() io.ReadCloser {
	if len(b.sent) <= copyBody {
		return io.NopCloser(bytes.NewReader(bytes.Clone(b.sent)))
	}
	b.refs.Add(1)
	return &bodyReader{body: b}
}

type bodyReader struct {
	mu   sync.Mutex
	body *body // nil once closed
	at   int
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	if r.at == len(r.body.sent) {
		return 0, io.EOF
	}
	n := copy(p, r.body.sent[r.at:])
	r.at += n
	return n, nil
}

func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body != nil {
		r.body.release()
		r.body = nil
	}
	return nil
}
