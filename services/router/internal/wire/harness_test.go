package wire

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 20 * time.Second

func newTransport(t testing.TB) *Transport {
	w := &Transport{Dial: (&net.Dialer{}).DialContext, Other: http.DefaultTransport}
	t.Cleanup(w.CloseIdleConnections)
	return w
}

// engine is a server that speaks bytes: it counts its connections, reads a request whole, and hands what it read to say.
type engine struct {
	url     string
	dialled atomic.Int64
	conns   sync.Map
}

func newEngine(t testing.TB, say func(c net.Conn, n int, body []byte) (more bool)) *engine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{url: "http://" + l.Addr().String()}
	t.Cleanup(func() {
		l.Close()
		e.hangUp()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.dialled.Add(1)
			e.conns.Store(c, true)
			go serve(c, say)
		}
	}()
	return e
}

func (e *engine) hangUp() {
	e.conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
}

func serve(c net.Conn, say func(c net.Conn, n int, body []byte) bool) {
	defer c.Close()
	in := bufio.NewReader(c)
	for n := 0; ; n++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || !say(c, n, body) {
			return
		}
	}
}

func post(t testing.TB, url, body string) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/x?a=b", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(c net.Conn, s string) bool {
	_, err := io.WriteString(c, s)
	return err == nil
}
