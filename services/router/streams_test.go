package router

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// TestAThousandStreamsAtOnce holds as many streams open as there are, all at the same time, so that none can end before
// the last has begun; twice. Each gets its own answer whole, the ledger is empty afterwards, and the second wave leaves
// neither goroutines nor memory that the first did not.
func TestAThousandStreamsAtOnce(t *testing.T) {
	n := 1000
	if underRace {
		n = 300 // the detector knows 8,128 goroutines at a time, and each stream has a dozen here
	}
	g := newRig(t, Config{})
	var begun atomic.Int64
	all := make(chan struct{}) // closed when all streams of the wave under way have begun
	for i := range 4 {
		g.addEngine(fmt.Sprintf("e%d", i), func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			own := fmt.Sprintf("data: {\"choices\":[{\"text\":%q}]}\n\n", r.Header.Get("X-Number"))
			sse(own)(w, r)
			w.(http.Flusher).Flush()
			if begun.Add(1) == int64(n) {
				close(all)
			}
			select {
			case <-all:
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, own+useEvent+doneMark)
		})
	}
	client := &http.Client{Transport: &http.Transport{}, Timeout: 2 * time.Minute} // it waits for a busy machine to take its connection
	wave := func() (goroutines int, heap uint64) {
		begun.Store(0)
		all = make(chan struct{})
		var clients sync.WaitGroup
		for i := range n {
			clients.Go(func() { streamOne(t, client, g.url, fmt.Sprint(i)) })
		}
		clients.Wait()
		g.idle()
		client.CloseIdleConnections()
		g.rt.hangUp()
		g.eventually("the end of the connections", func() bool { return runtime.NumGoroutine() < 100 })
		runtime.GC()
		runtime.GC() // pools keep what they have for one collection
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	before, held := wave()
	after, holds := wave()
	// The test's own logs and records grow by a few KB a request; a leaked read buffer alone is 32 KB.
	if after > before+10 || holds > held+uint64(n)*10<<10 {
		t.Errorf("%d goroutines and %d bytes after a first wave, %d and %d after a second", before, held, after, holds)
	}
}

func streamOne(t *testing.T, client *http.Client, url, number string) {
	body := fmt.Sprintf(`{"model":%q,"prompt":"hi","stream":true}`, model)
	r, _ := http.NewRequest(http.MethodPost, url+"/v1/completions", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Number", number)
	resp, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	own := fmt.Sprintf("data: {\"choices\":[{\"text\":%q}]}\n\n", number)
	if err != nil || string(answer) != own+own+doneMark {
		t.Errorf("stream %s: %d %q %v", number, resp.StatusCode, answer, err)
	}
}

// TestASmallBodyComesWithItsHeaders reads an engine's socket: what fits is sent at once.
func TestASmallBodyComesWithItsHeaders(t *testing.T) {
	g := newRig(t, Config{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	g.addEngine("e1", nil, func(e *fleet.Engine) { e.URL = "http://" + listener.Addr().String() })
	body := fmt.Sprintf(`{"model":%q,"prompt":"%s"}`, model, strings.Repeat("x", 4<<10))
	first := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			first <- err.Error()
			return
		}
		defer conn.Close()
		buf := make([]byte, 64<<10)
		n, _ := conn.Read(buf)
		first <- string(buf[:n])
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	}()
	g.post("/v1/completions", body)
	if got := <-first; !strings.HasSuffix(got, body) {
		t.Errorf("%d bytes at first, without the body's end", len(got))
	}
}
