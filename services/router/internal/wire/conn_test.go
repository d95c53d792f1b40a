package wire

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// TestLargeBodiesKeepTheirConnection: the goroutine that writes one has mostly not said so when the answer has come.
func TestLargeBodiesKeepTheirConnection(t *testing.T) {
	e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool {
		return write(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	w := newTransport(t)
	for range 50 {
		resp, err := w.RoundTrip(post(t, e.url, strings.Repeat("x", 3*aloneBytes)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.dialled.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestManyAtOnce: every answer is the one to its question, whichever connection it came on.
func TestManyAtOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question, _ := io.ReadAll(r.Body)
		_, _ = w.Write(question)
	}))
	defer server.Close()
	w := newTransport(t)
	var group sync.WaitGroup
	for g := range 16 {
		group.Go(func() {
			for i := range 50 {
				question := strings.Repeat(fmt.Sprintf("%d/%d ", g, i), 1+(g*i*37)%20_000)
				resp, err := w.RoundTrip(post(t, server.URL, question))
				if err != nil {
					t.Error(err)
					return
				}
				if i%7 == 3 { // leaves
					resp.Body.Close()
					continue
				}
				if got, err := io.ReadAll(resp.Body); err != nil || string(got) != question {
					t.Errorf("%d bytes of %d: %v", len(got), len(question), err)
				}
			}
		})
	}
	group.Wait()
}

// TestAConnectionThatIsBeingClosedIsNotKept: the request's context ended in the moment in which its answer did.
func TestAConnectionThatIsBeingClosedIsNotKept(t *testing.T) {
	for _, ended := range []bool{false, true} {
		w := newTransport(t)
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := newConn(w, "a:1", ours)
		c.stop = func() bool { return !ended }
		if c.end(true); (len(w.idle["a:1"]) == 1) == ended {
			t.Errorf("ended %v, kept %d", ended, len(w.idle["a:1"]))
		}
	}
}
