package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

const (
	oneWrite = 32 << 10         // a piece of a body up to here goes with the head
	keptHead = oneWrite + 8<<10 // a larger buffer is not kept
)

var errLength = errors.New("body has another length than was announced")

// head is the head of a request, and what writes it with the body.
type head struct {
	buf   bytes.Buffer // what is not written yet
	out   net.Conn
	left  int64 // bytes of the body
	began bool  // something was written
	parts [2][]byte
}

// ownHeaders are made from the request itself.
var ownHeaders = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

func (h *head) start(r *http.Request, out net.Conn) {
	h.buf.Reset()
	h.out, h.began, h.left = out, false, r.ContentLength
	b := &h.buf
	b.WriteString(r.Method)
	b.WriteByte(' ')
	b.WriteString(r.URL.RequestURI())
	b.WriteString(" HTTP/1.1\r\nHost: ")
	if r.Host != "" {
		b.WriteString(r.Host)
	} else {
		b.WriteString(r.URL.Host)
	}
	b.WriteString("\r\n")
	if h.left > 0 || r.Method == http.MethodPost {
		b.WriteString("Content-Length: ")
		b.Write(strconv.AppendInt(b.AvailableBuffer(), h.left, 10))
		b.WriteString("\r\n")
	}
	_ = r.Header.WriteSubset(b, ownHeaders) // a buffer takes all
	b.WriteString("\r\n")
}

// whole writes the head and the body. It fails with errUnsent where nothing went out.
func (h *head) whole(r *http.Request) error {
	if h.left > 0 {
		if _, err := io.Copy(h, r.Body); err != nil {
			return h.failed(err)
		}
		if h.left > 0 {
			return h.failed(errLength)
		}
	}
	if h.buf.Len() > 0 {
		if err := h.write(h.buf.Bytes()); err != nil {
			return h.failed(err)
		}
	}
	return nil
}

func (h *head) failed(err error) error {
	if h.began {
		return err
	}
	return fmt.Errorf("%w: %w", errUnsent, err)
}

// Write writes a piece of the body, the first one with the head.
func (h *head) Write(p []byte) (int, error) {
	if int64(len(p)) > h.left {
		return 0, errLength
	}
	h.left -= int64(len(p))
	waiting := h.buf.Len()
	if waiting == 0 {
		return len(p), h.write(p)
	}
	if len(p) <= oneWrite {
		h.buf.Write(p)
		p = h.buf.Bytes()
		h.buf.Reset()
		return len(p) - waiting, h.write(p)
	}
	h.parts = [2][]byte{h.buf.Bytes(), p}
	both := net.Buffers(h.parts[:])
	n, err := both.WriteTo(h.out)
	h.began = h.began || n > 0
	h.parts = [2][]byte{}
	h.buf.Reset()
	return max(0, int(n)-waiting), err
}

func (h *head) write(p []byte) error {
	n, err := h.out.Write(p)
	h.began = h.began || n > 0
	return err
}
