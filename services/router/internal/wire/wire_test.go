package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRequestsArriveAsNetHTTPSendsThem compares what a server reads, for bodies around each bound.
func TestRequestsArriveAsNetHTTPSendsThem(t *testing.T) {
	type seen struct {
		method, uri, host, header, body string
		length                          int64
	}
	var last atomic.Pointer[seen]
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Header.Del("User-Agent")
		r.Header.Del("Accept-Encoding")
		last.Store(&seen{r.Method, r.RequestURI, r.Host, fmt.Sprint(r.Header), string(body), r.ContentLength})
	}))
	defer server.Close()
	ours, theirs := newTransport(t), &http.Transport{DisableCompression: true}
	defer theirs.CloseIdleConnections()
	for _, size := range []int{0, 1, 100, oneWrite - 1, oneWrite, oneWrite + 1, aloneBytes, aloneBytes + 1, 3 << 20} {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			var got [2]seen
			for i, transport := range []http.RoundTripper{theirs, ours} {
				r := post(t, server.URL, strings.Repeat("x", size))
				r.Method = method
				r.Header["X-Many"] = []string{"a", "b", ""}
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Transfer-Encoding", "chunked") // a framing that is not the body's
				resp, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(size, err)
				}
				resp.Body.Close()
				got[i] = *last.Load()
			}
			if got[0] != got[1] {
				t.Fatalf("%s of %d bytes:\n%.300v\n%.300v", method, size, got[0], got[1])
			}
		}
	}
}

// TestNoHeaderEndsItsLine: a value with a line break cannot make another header or request.
func TestNoHeaderEndsItsLine(t *testing.T) {
	e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
		return write(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	var raw bytes.Buffer
	w := newTransport(t)
	w.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &tap{c, &raw}, err
	}
	r := post(t, e.url, "body")
	r.Header["X-A"] = []string{"1\r\nX-Forged: 1\r\n\r\nGET / HTTP/1.1\r\n"}
	resp, err := w.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	sent, err := http.ReadRequest(bufio.NewReader(&raw))
	if err != nil || sent.Header.Get("X-Forged") != "" || sent.ContentLength != 4 {
		t.Fatalf("%v %v", sent, err)
	}
}

type tap struct {
	net.Conn
	raw *bytes.Buffer
}

func (c *tap) Write(p []byte) (int, error) { c.raw.Write(p); return c.Conn.Write(p) }

// answers are what an engine may say, in the form in which it goes over the wire.
var answers = []struct {
	name, raw, body string
	status          int
	kept            bool // the connection may serve another request
}{
	{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, true},
	{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", "hello", 200, true},
	{"trailers", "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n\r\n", "hello", 200, true},
	{"to the end", "HTTP/1.1 200 OK\r\n\r\nhello", "hello", 200, false},
	{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, false},
	{"HTTP/1.0, kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, true},
	{"closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, false},
	{"empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 200, true},
	{"no content", "HTTP/1.1 204 No Content\r\n\r\n", "", 204, true},
	{"continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, true},
	{"refusal", "HTTP/1.1 503 Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno", "no", 503, true},
	{"more than asked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", "hello", 200, false},
}

// TestAnswersAndConnections: each form of answer is read, and a connection serves again exactly if it may.
func TestAnswersAndConnections(t *testing.T) {
	for _, c := range answers {
		for _, step := range []int{1, 7, 1 << 10} { // bytes at a time
			e := newEngine(t, func(to net.Conn, _ int, body []byte) bool {
				if string(body) != "question" {
					t.Errorf("%q arrived", body)
				}
				for rest := c.raw; rest != ""; rest = rest[min(step, len(rest)):] {
					if !write(to, rest[:min(step, len(rest))]) {
						return false
					}
				}
				return c.kept
			})
			w := newTransport(t)
			for i := range 3 {
				resp, err := w.RoundTrip(post(t, e.url, "question"))
				if err != nil {
					t.Fatal(c.name, err)
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || string(body) != c.body || resp.StatusCode != c.status {
					t.Fatalf("%s: %d %q %v", c.name, resp.StatusCode, body, err)
				}
				if c.name == "trailers" && resp.Trailer.Get("X-T") != "v" {
					t.Errorf("trailers %v", resp.Trailer)
				}
				if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("%s: after the end %d %v", c.name, n, err)
				}
				resp.Body.Close()
				if want := map[bool]int64{true: 1, false: int64(i + 1)}[c.kept]; e.dialled.Load() != want {
					t.Fatalf("%s: %d connections for %d requests, want %d", c.name, e.dialled.Load(), i+1, want)
				}
			}
		}
	}
}

// TestBrokenAnswersFail: neither a head nor a body that breaks off or is none is taken for whole, and none fills memory.
func TestBrokenAnswersFail(t *testing.T) {
	for _, raw := range []string{
		"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "hello\r\n\r\n", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 2*mostHead) + "\r\n\r\n",
		strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", mostHead/10),
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
	} {
		e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool { write(c, raw); return false })
		w := newTransport(t)
		resp, err := w.RoundTrip(post(t, e.url, "question"))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%.60q: %v", raw, err)
		}
		if len(w.idle) > 0 {
			t.Errorf("%.60q: the connection was kept", raw)
		}
	}
}

// TestClosedConnectionsAreNotUsed: the engine closes what is idle; the next request finds an open one, and is sent once.
func TestClosedConnectionsAreNotUsed(t *testing.T) {
	var asked atomic.Int64
	e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
		asked.Add(1)
		return write(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	w := newTransport(t)
	for i := range 20 {
		resp, err := w.RoundTrip(post(t, e.url, "question"))
		if err != nil {
			t.Fatal(i, err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(i, err)
		}
		if i%2 == 1 {
			e.hangUp()
			awaitClosed(t, w)
		}
	}
	if asked.Load() != 20 || e.dialled.Load() != 10 {
		t.Errorf("%d requests on %d connections", asked.Load(), e.dialled.Load())
	}
}

// awaitClosed waits until what is idle has heard that it is closed, without taking it.
func awaitClosed(t *testing.T, w *Transport) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		open := false
		for _, free := range w.idle {
			for _, c := range free {
				open = open || c.open()
			}
		}
		if !open {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("still open")
}

// TestStaleConnectionIsReplacedBeforeAnythingIsSent: the look missed the close, and the first write fails.
func TestStaleConnectionIsReplacedBeforeAnythingIsSent(t *testing.T) {
	e := newEngine(t, func(c net.Conn, _ int, body []byte) bool {
		return string(body) == "question" && write(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	w := newTransport(t)
	dead, other := net.Pipe()
	other.Close()
	address := strings.TrimPrefix(e.url, "http://")
	stale := newConn(w, address, dead) // of a kind that cannot be looked at
	w.keep(stale)
	meanwhile := 0
	resp, err := w.Send(post(t, e.url, "question"), func() { meanwhile++ })
	if err != nil || meanwhile != 1 {
		t.Fatal(err, meanwhile)
	}
	if got, err := io.ReadAll(resp.Body); string(got) != "ok" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	w.keep(newConn(w, address, dead))
	r := post(t, e.url, "question")
	r.GetBody = nil
	if _, err := w.RoundTrip(r); !errors.Is(err, errUnsent) {
		t.Errorf("sent again a body that cannot be had again: %v", err)
	}
}

// TestEarlyAnswer: an engine that answers before it has read a large body is heard, and its connection is not kept.
func TestEarlyAnswer(t *testing.T) {
	for _, closes := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		heard := make(chan bool)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			in := bufio.NewReader(c)
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			write(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
			if closes {
				_ = c.(*net.TCPConn).CloseWrite()
			}
			<-heard // nothing is read before
		}()
		w := newTransport(t)
		resp, err := w.RoundTrip(post(t, "http://"+l.Addr().String(), strings.Repeat("x", 64<<20)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "big" || resp.StatusCode != 413 {
			t.Fatalf("%d %q %v", resp.StatusCode, body, err)
		}
		close(heard)
		if len(w.idle) != 0 {
			t.Error("kept")
		}
	}
}

// TestCancelledExchanges ends requests at each of their stages.
func TestCancelledExchanges(t *testing.T) {
	cause := errors.New("the client left")
	for _, stage := range []string{"before", "sending", "head", "body"} {
		hold := make(chan struct{})
		ctx, cancel := context.WithCancelCause(t.Context())
		e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
			if stage == "body" {
				write(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
			}
			if stage == "head" {
				cancel(cause)
			}
			<-hold
			return false
		})
		w := newTransport(t)
		r := post(t, e.url, "question").WithContext(ctx)
		switch stage {
		case "before":
			cancel(cause)
		case "sending":
			r = post(t, e.url, strings.Repeat("x", 1<<10)).WithContext(ctx)
			r.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { cancel(cause); <-ctx.Done(); return 0, io.ErrUnexpectedEOF }))
		}
		resp, err := w.RoundTrip(r)
		if stage == "body" {
			if err != nil {
				t.Fatal(err)
			}
			two := make([]byte, 2)
			if _, err := io.ReadFull(resp.Body, two); err != nil || string(two) != "he" {
				t.Fatalf("%q %v", two, err)
			}
			cancel(cause)
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if !errors.Is(err, cause) {
				t.Errorf("%s: %v", stage, err)
			}
		} else if !errors.Is(err, cause) {
			t.Errorf("%s: %v", stage, err)
		}
		if len(w.idle) != 0 {
			t.Errorf("%s: kept", stage)
		}
		close(hold)
		cancel(nil)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestUnreadAnswerClosesItsConnection: the engine must see that nobody listens.
func TestUnreadAnswerClosesItsConnection(t *testing.T) {
	gone := make(chan error, 1)
	e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
		write(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
		_, err := c.Read(make([]byte, 1))
		gone <- err
		return false
	})
	w := newTransport(t)
	resp, err := w.RoundTrip(post(t, e.url, "question"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := <-gone; err == nil {
		t.Error("the engine read on")
	}
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("read after close")
	}
}

// TestSweep closes what is old, and what the engine has closed.
func TestSweep(t *testing.T) {
	e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
		return write(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	w := newTransport(t)
	ask := func() {
		t.Helper()
		if _, err := w.RoundTrip(post(t, e.url, "question")); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if w.sweep(time.Now()); len(w.idle) != 1 {
		t.Error("an open one was closed")
	}
	if w.sweep(time.Now().Add(idleTime)); len(w.idle) != 0 || w.sweeping {
		t.Error("an old one was kept")
	}
	ask()
	e.hangUp()
	awaitClosed(t, w)
	if w.sweep(time.Now()); len(w.idle) != 0 {
		t.Error("a closed one was kept")
	}
}

// TestOtherRequestsAreOthers: what is not ours is sent by the other transport, and traces hear of connections.
func TestOtherRequestsAreOthers(t *testing.T) {
	theirs := 0
	w := newTransport(t)
	w.Other = roundTrip(func(*http.Request) (*http.Response, error) { theirs++; return nil, io.EOF })
	for name, change := range map[string]func(r *http.Request){
		"TLS":            func(r *http.Request) { r.URL.Scheme = "https" },
		"expectation":    func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"upgrade":        func(r *http.Request) { r.Header.Set("Upgrade", "x") },
		"unknown length": func(r *http.Request) { r.ContentLength = -1 },
		"trailer":        func(r *http.Request) { r.Trailer = http.Header{"A": nil} },
		"closing":        func(r *http.Request) { r.Close = true },
	} {
		r := post(t, "http://127.0.0.1:1", "x")
		change(r)
		theirs = 0
		if _, err := w.RoundTrip(r); !errors.Is(err, io.EOF) || theirs != 1 {
			t.Errorf("%s: %v, asked %d times", name, err, theirs)
		}
	}
	var op *net.OpError
	if _, err := w.RoundTrip(post(t, "http://127.0.0.1:1", "x")); !errors.As(err, &op) || op.Op != "dial" {
		t.Errorf("%v", err)
	}
	e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
		return write(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	var reused []bool
	r := post(t, e.url, "x")
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = append(reused, i.Reused) }}))
	for range 2 {
		r.Body, _ = r.GetBody()
		if _, err := w.RoundTrip(r); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(reused) != "[false true]" {
		t.Errorf("%v", reused)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestLengthsAreKept: a body that is shorter or longer than announced does not run into the next request.
func TestLengthsAreKept(t *testing.T) {
	e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
		return write(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	w := newTransport(t)
	for _, length := range []int64{7, 9} {
		r := post(t, e.url, "question")
		r.ContentLength = length
		r.GetBody = nil
		if _, err := w.RoundTrip(r); !errors.Is(err, errLength) {
			t.Errorf("%d: %v", length, err)
		}
		if len(w.idle) != 0 {
			t.Errorf("%d: kept", length)
		}
	}
}
