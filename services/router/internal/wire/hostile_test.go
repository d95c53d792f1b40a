package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// oddAnswers are what no sane engine says. What is read of them must be what net/http reads, and what follows on the
// connection must never be taken for the answer to another request.
var oddAnswers = map[string]string{
	"surplus":                 "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
	"surplus byte":            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\n",
	"surplus after chunks":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
	"surplus after trailers":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
	"204 with a body":         "HTTP/1.1 204 No Content\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
	"304 with a body":         "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
	"204 in chunks":           "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"no length, two answers":  "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
	"chunks and length":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"length and chunks":       "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"two equal lengths":       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
	"two lengths":             "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
	"length in a list":        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
	"length with a sign":      "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
	"length below zero":       "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
	"length beyond all":       "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
	"too short":               "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
	"two codings":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"unknown coding":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.0 in chunks":      "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.0 without length": "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok",
	"HTTP/0.9":                "ok\r\n",
	"HTTP/2.0":                "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"no reason":               "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
	"four digits":             "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
	"status 0":                "HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
	"status below zero":       "HTTP/1.1 -10 OK\r\nContent-Length: 2\r\n\r\nok",
	"lines that end in LF":    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	"bare CR in a value":      "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 9\r\nContent-Length: 2\r\n\r\nok",
	"NUL in a value":          "HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 2\r\n\r\nok",
	"NUL in a name":           "HTTP/1.1 200 OK\r\nA\x00: b\r\nContent-Length: 2\r\n\r\nok",
	"space before the colon":  "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
	"folded":                  "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
	"folded length":           "HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok",
	"folded at once":          "HTTP/1.1 200 OK\r\n A: b\r\nContent-Length: 2\r\n\r\nok",
	"no colon":                "HTTP/1.1 200 OK\r\nA\r\nContent-Length: 2\r\n\r\nok",
	"ten thousand lines":      "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 10_000) + "Content-Length: 2\r\n\r\nok",
	"long extension":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 20_000) + "\r\nok\r\n0\r\n\r\n",
	"long trailer":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: " + strings.Repeat("x", 40_000) + "\r\n\r\n",
	"bare LF in chunks":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
	"chunk longer than said":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok!\r\n0\r\n\r\n",
	"chunk of 17 digits":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000002\r\nok\r\n0\r\n\r\n",
	"chunk below zero":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
	"interim with a body":     "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"interim of all kinds":    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 A\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"interim alone":           "HTTP/1.1 100 Continue\r\n\r\n",
	"upgrade":                 "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
	"close among others":      "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
	"blank line first":        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
}

// TestOddAnswers: the same bytes, said to the first request of a connection, mean the same to us and to net/http; and no
// other request on it is answered by what is left of them. All other requests are answered by their own bodies.
func TestOddAnswers(t *testing.T) {
	for name, raw := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, func(c net.Conn, _ int, body []byte) bool {
				if string(body) == "question" {
					_, err := io.WriteString(c, raw)
					return err == nil && !endsWithConnection(raw)
				}
				return write(c, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
			})
			ours, theirs := newTransport(t), &http.Transport{DisableCompression: true}
			defer theirs.CloseIdleConnections()
			if got, want := outcome(t, ours, e.url), outcome(t, theirs, e.url); got != want {
				t.Errorf("ours\n%.300s\ntheirs\n%.300s", got, want)
			}
			for i := range 3 {
				own := fmt.Sprint("own ", i)
				resp, err := ours.RoundTrip(post(t, e.url, own))
				if err != nil {
					t.Fatalf("request %d after it: %v", i, err)
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != own || resp.StatusCode != http.StatusOK {
					t.Fatalf("request %d after it: %d %q %v", i, resp.StatusCode, got, err)
				}
			}
		})
	}
}

// TestLateSurplus: what an engine says on an idle connection answers nobody, however little it is and whoever finds it.
func TestLateSurplus(t *testing.T) {
	for _, surplus := range []string{"\n", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"} {
		for _, swept := range []bool{false, true} {
			late := make(chan bool)
			e := newEngine(t, func(c net.Conn, _ int, body []byte) bool {
				write(c, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
				if string(body) == "first" {
					<-late
					write(c, surplus)
					late <- true
				}
				return true
			})
			w := newTransport(t)
			for i, own := range []string{"first", "second", "third"} {
				resp, err := w.RoundTrip(post(t, e.url, own))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(resp.Body); err != nil || string(got) != own {
					t.Fatalf("%s: %q %v", own, got, err)
				}
				if i > 0 {
					continue
				}
				late <- true
				<-late
				if swept {
					w.sweep(time.Now())
				}
			}
			if n := e.dialled.Load(); n != 2 {
				t.Errorf("%q, swept %v: %d connections", surplus, swept, n)
			}
		}
	}
}

// endsWithConnection says that only the connection's end ends an answer, or that it is not whole.
func endsWithConnection(raw string) bool {
	in := bufio.NewReader(strings.NewReader(raw))
	r, err := http.ReadResponse(in, nil)
	for err == nil && r.StatusCode >= 100 && r.StatusCode < 200 {
		r, err = http.ReadResponse(in, nil)
	}
	return err != nil || r.Close || r.ContentLength > int64(len(raw)) || strings.HasSuffix(raw, "\r\n\r\nok") && r.ContentLength > 2
}

// TestEarlyAnswerOverAReset: an engine that answers, closes and has not read all resets the connection behind its answer.
func TestEarlyAnswerOverAReset(t *testing.T) {
	for _, size := range []int{1, oneWrite, aloneBytes, aloneBytes + 1, 8 << 20} {
		for range 10 {
			e := newHead(t, func(c net.Conn) { write(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig") })
			w := newTransport(t)
			resp, err := w.RoundTrip(post(t, e, strings.Repeat("x", size)))
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != "big" || len(w.idle[strings.TrimPrefix(e, "http://")]) != 0 && size > 1<<20 {
				t.Fatalf("%d bytes: %q %v", size, body, err)
			}
		}
	}
}

// newHead is an engine that reads the head of one request, answers and closes.
func newHead(t *testing.T, say func(net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReaderSize(c, 16)); err == nil {
			say(c)
		}
	}()
	return "http://" + l.Addr().String()
}

// TestLengthsWithoutBodies: an announced length without a body is what it is to net/http, and no frame of its own.
func TestLengthsWithoutBodies(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
	}))
	defer server.Close()
	arrives := func(transport http.RoundTripper, body io.ReadCloser, length int64) string {
		r := post(t, server.URL, "")
		r.Body, r.ContentLength = body, length
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return "fails"
		}
		resp.Body.Close()
		return resp.Status + resp.Header.Get("X-Length")
	}
	theirs := &http.Transport{}
	defer theirs.CloseIdleConnections()
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		for _, length := range []int64{-1, 0, 7} {
			if got, want := arrives(newTransport(t), body, length), arrives(theirs, body, length); got != want {
				t.Errorf("%v of length %d: %s, want %s", body, length, got, want)
			}
		}
	}
}
