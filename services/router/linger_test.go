package router

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A client that sends its whole body before it reads the answer is told why it is refused, and is not cut off.
func TestARefusalReachesAClientThatSendsEverythingFirst(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", plain(okAnswer))
	const size = 40 << 20
	body := strings.Repeat("x", size)
	for name, c := range map[string]struct {
		kind, length string
		status       int
		code         string
	}{
		"announced": {"application/json", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body), 413, "request_too_large"},
		"in chunks": {"application/json", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, body), 413, "request_too_large"},
		"no JSON":   {"text/plain", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body), 415, ""},
		"no key":    {"application/json", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body), 401, "invalid_api_key"},
	} {
		g := g
		if c.status == http.StatusUnauthorized {
			g = newRig(t, Config{})
			g.rt.keys.Close()
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nContent-Type: "+c.kind+"\r\n"+c.length); err != nil {
			t.Errorf("%s: cut off while sending: %v", name, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkError(t, name, resp, string(answer), c.status, c.code, "")
		if !resp.Close {
			t.Errorf("%s: the connection would be used again", name)
		}
		if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: behind the answer came %d bytes, %v", name, n, err)
		}
		conn.Close()
	}
	g.idle()
}
