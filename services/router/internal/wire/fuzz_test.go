package wire

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// FuzzAnswer gives the same bytes as an answer to net/http's Transport and to ours: both must read the same, or fail.
func FuzzAnswer(f *testing.F) {
	for _, c := range answers {
		f.Add([]byte(c.raw))
	}
	for _, raw := range oddAnswers {
		f.Add([]byte(raw))
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/2.0 200 OK\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e := newEngine(t, func(c net.Conn, _ int, _ []byte) bool { _, _ = c.Write(raw); return false })
		ours, theirs := newTransport(t), &http.Transport{DisableCompression: true, DisableKeepAlives: false}
		defer theirs.CloseIdleConnections()
		got, want := outcome(t, ours, e.url), outcome(t, theirs, e.url)
		if got != want {
			t.Errorf("%q\nours   %s\ntheirs %s", raw, got, want)
		}
	})
}

// outcome is what a transport makes of an answer.
func outcome(t *testing.T, transport http.RoundTripper, url string) string {
	resp, err := transport.RoundTrip(post(t, url, "question"))
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return "no answer" // of ours, which never asks for that
	}
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %v %q whole %v trailer %v", resp.StatusCode, resp.Header, body, err == nil, resp.Trailer)
}
