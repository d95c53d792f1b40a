package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stored reads everything on subject.
func stored(t *testing.T, c *Conn, subject string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	n, err := c.Pending(ctx, Events, []string{subject}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		return nil
	}
	var all []string
	err = c.Follow(ctx, Events, []string{subject}, 1, func(m Message) {
		if all = append(all, string(m.Data)); m.Pending == 0 {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func mustPublish(t *testing.T, w *Writer, data string) uint64 {
	t.Helper()
	seq, err := w.Publish(deadline(t), []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestSecondWriterFencesTheFirst(t *testing.T) {
	t.Parallel()
	s := start(t)
	subject := EventSubject("p", 7)
	old, owner := connect(t, s.URL()).Writer(subject), connect(t, s.URL()).Writer(subject)

	mustPublish(t, old, "old 1")
	if _, err := owner.Publish(deadline(t), []byte("unclaimed")); !errors.Is(err, ErrFenced) {
		t.Errorf("a writer that claimed nothing may write: %v", err)
	}
	claim, err := owner.Claim(deadline(t), []byte("claim"))
	if err != nil || claim != 2 {
		t.Fatalf("claim at %d: %v", claim, err)
	}
	for range 2 { // the second time without asking the server
		if _, err := old.Publish(deadline(t), []byte("old 2")); !errors.Is(err, ErrFenced) {
			t.Errorf("the old owner may write: %v", err)
		}
	}
	mustPublish(t, owner, "new 1")
	if _, err := old.Claim(deadline(t), []byte("claim back")); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, old, "old 3")
	want := []string{"old 1", "claim", "new 1", "claim back", "old 3"}
	if got := stored(t, connect(t, s.URL()), subject); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestPublishRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t).URL())
	w := c.Writer(EventSubject("p", 1))
	if _, err := w.Publish(deadline(t), make([]byte, 2<<20)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("2 MiB: %v", err)
	}
	mustPublish(t, w, "goes on")
}

func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	w := connect(t, s.URL()).Writer(EventSubject("p", 1))
	mustPublish(t, w, "1")
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.Publish(ctx, []byte("2")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// proxy stands between client and server; when armed it swallows the next acknowledgement of a publish and cuts.
type proxy struct {
	net.Listener
	armed     atomic.Bool
	swallowed atomic.Int32
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			backend, err := net.Dial("tcp", strings.TrimPrefix(server, "nats://"))
			if err != nil {
				client.Close()
				continue
			}
			go func() { io.Copy(backend, client); backend.Close() }()
			go p.answers(client, backend)
		}
	}()
	return p
}

func (p *proxy) answers(client, backend net.Conn) {
	defer client.Close()
	defer backend.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := backend.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte(`{"stream":"`+Events+`","seq"`)) && p.armed.CompareAndSwap(true, false) {
			p.swallowed.Add(1)
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestLostAcknowledgementIsNotSentTwice(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := startProxy(t, s.URL())
	c, direct := connect(t, "nats://"+p.Addr().String()), connect(t, s.URL())
	subject := EventSubject("p", 3)
	w := c.Writer(subject)

	var want []string
	for i := range 6 {
		p.armed.Store(i%2 == 0) // also the very first
		data := "message " + strconv.Itoa(i)
		if seq := mustPublish(t, w, data); seq != uint64(i+1) {
			t.Errorf("%s is at %d, want %d", data, seq, i+1)
		}
		want = append(want, data)
	}
	if got := stored(t, direct, subject); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	if n := p.swallowed.Load(); n != 3 {
		t.Fatalf("%d acknowledgements were lost, want 3: the test tests nothing", n)
	}
	// A claim's acknowledgement is lost too.
	p.armed.Store(true)
	if seq, err := w.Claim(deadline(t), []byte("claim")); err != nil || seq != 7 {
		t.Errorf("claim at %d: %v", seq, err)
	}
	mustPublish(t, w, "after the claim")
}

func TestLostAcknowledgementThenFenced(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := connect(t, s.URL())
	subject := EventSubject("p", 4)
	w, other := c.Writer(subject), c.Writer(subject)
	mustPublish(t, w, "a")
	// Same bytes as w is about to send, but by sequence it is not what w sent last: only its place tells.
	if _, err := other.Claim(deadline(t), []byte("claim")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Publish(deadline(t), []byte("b")); !errors.Is(err, ErrFenced) {
		t.Errorf("got %v, want fenced", err)
	}
}

func TestEmptiedSubjectIsWrittenAgain(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t).URL())
	w := c.Writer(EventSubject("p", 5))
	mustPublish(t, w, "a")
	stream, err := c.js.Stream(t.Context(), Events)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil { // as age or size would
		t.Fatal(err)
	}
	if seq := mustPublish(t, w, "b"); seq != 2 {
		t.Errorf("written at %d, want 2", seq)
	}
}

func TestServerRestartLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	s := startRestartable(t)
	c := connect(t, s.URL())
	const buckets, restarts, least = 4, 3, 100

	ctx, stop := context.WithCancel(deadline(t))
	defer stop()
	var acked [buckets]atomic.Int64
	var wg sync.WaitGroup
	for b := range buckets {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w := c.Writer(EventSubject("p", b))
			for i := int64(0); ctx.Err() == nil; i++ {
				if _, err := w.Publish(ctx, []byte(strconv.FormatInt(i, 10))); err != nil {
					if ctx.Err() == nil {
						t.Errorf("bucket %d, message %d: %v", b, i, err)
					}
					return
				}
				acked[b].Store(i + 1)
			}
		}()
	}
	progress := func(from [buckets]int64) {
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			done := 0
			for b := range buckets {
				if acked[b].Load() >= from[b]+least {
					done++
				}
			}
			if done == buckets {
				return
			}
			if time.Now().After(end) {
				t.Fatal("publishing does not go on")
			}
		}
	}
	var mark [buckets]int64
	for range restarts {
		progress(mark)
		s.restart(t)
		for b := range buckets {
			mark[b] = acked[b].Load()
		}
	}
	progress(mark)
	stop()
	wg.Wait()

	for b := range buckets {
		got := stored(t, connect(t, s.URL()), EventSubject("p", b))
		n := acked[b].Load()
		if int64(len(got)) < n || int64(len(got)) > n+1 { // the one in flight at the end may be there
			t.Errorf("bucket %d: %d stored, %d acknowledged", b, len(got), n)
		}
		for i, data := range got {
			if data != strconv.Itoa(i) {
				t.Fatalf("bucket %d: message %d is %q", b, i, data)
			}
		}
	}
}
