package kvwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader collects what one Subscribe hears.
type reader struct {
	mu     sync.Mutex
	frames []Frame
	bad    map[string]int
	stop   func()
}

func subscribed(t *testing.T, endpoint string) *reader {
	t.Helper()
	return subscribedRenewing(t, endpoint, renewAfter)
}

func subscribedRenewing(t *testing.T, endpoint string, renew time.Duration) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &reader{bad: map[string]int{}}
	done := make(chan error, 1)
	go func() {
		done <- subscribe(ctx, endpoint, renew, renew, func(f Frame) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.frames = append(r.frames, f)
		}, func(reason string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.bad[reason]++
		})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Subscribe: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *reader) seen() (frames []Frame, bad map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	copied := map[string]int{}
	for k, v := range r.bad {
		copied[k] = v
	}
	return r.frames[:len(r.frames):len(r.frames)], copied
}

func listen(t *testing.T, o PublisherOptions) *Publisher {
	t.Helper()
	p, err := Listen("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// joined publishes markers until the reader hears one, so that nothing after it is lost to a slow joiner.
func joined(t *testing.T, p *Publisher, r *reader) {
	t.Helper()
	before, _ := r.seen()
	eventually(t, "subscriber joined", func() bool {
		p.SendRaw([]byte("join"), sequence(1<<40), nil)
		frames, _ := r.seen()
		return len(frames) > len(before)
	})
}

// published leaves out the markers.
func published(frames []Frame) (out []Frame) {
	for _, f := range frames {
		if string(f.Topic) != "join" {
			out = append(out, f)
		}
	}
	return out
}

func sequences(frames []Frame) string {
	var out []string
	for _, f := range frames {
		out = append(out, fmt.Sprintf("%d:%s", f.Seq, f.Payload))
	}
	return strings.Join(out, " ")
}

func TestLiveBatchesArriveInOrder(t *testing.T) {
	t.Parallel()
	p := listen(t, PublisherOptions{Topic: "kv-events"})
	endpoint, _ := p.Endpoints()
	r := subscribed(t, endpoint)
	joined(t, p, r)
	const n = 5000
	for i := range n {
		if seq := p.Publish(fmt.Appendf(nil, "batch %d", i)); seq != uint64(i) {
			t.Fatalf("batch %d got sequence %d", i, seq)
		}
	}
	eventually(t, "all batches", func() bool { f, _ := r.seen(); return len(published(f)) == n })
	frames, bad := r.seen()
	for i, f := range published(frames) {
		if f.Seq != uint64(i) || string(f.Payload) != fmt.Sprintf("batch %d", i) || string(f.Topic) != "kv-events" || f.Received.IsZero() {
			t.Fatalf("frame %d is %d %q %q", i, f.Seq, f.Topic, f.Payload)
		}
	}
	if len(bad) != 0 {
		t.Errorf("dropped messages: %v", bad)
	}
}

func TestWrongShapesAreReported(t *testing.T) {
	t.Parallel()
	p := listen(t, PublisherOptions{})
	endpoint, _ := p.Endpoints()
	r := subscribed(t, endpoint)
	joined(t, p, r)
	eight := sequence(7)
	p.SendRaw([]byte("one part"))
	p.SendRaw(nil, eight)
	p.SendRaw(nil, eight, nil, nil)
	p.SendRaw(make([][]byte, 1000)...)
	p.SendRaw(nil, eight[:7], []byte("x"))
	p.SendRaw(nil, nil, []byte("x"))
	p.SendRaw(nil, append(eight, 0), []byte("x"))
	p.Publish([]byte("good"))
	eventually(t, "the good one", func() bool { f, _ := r.seen(); return sequences(published(f)) == "0:good" })
	if _, bad := r.seen(); bad[WrongParts] != 4 || bad[WrongSequence] != 3 {
		t.Errorf("reasons: %v", bad)
	}
}

// A frame over 8 MiB costs the connection, and libzmq makes no new one: only the renewal after silence does.
func TestHugeFrameIsRefused(t *testing.T) {
	t.Parallel()
	p := listen(t, PublisherOptions{})
	endpoint, _ := p.Endpoints()
	r := subscribedRenewing(t, endpoint, 300*time.Millisecond)
	joined(t, p, r)
	p.SendRaw(nil, sequence(1), make([]byte, maxMessage+1))
	joined(t, p, r)
	frames, _ := r.seen()
	if got := published(frames); len(got) != 0 {
		t.Errorf("a frame of %d bytes came through", len(got[0].Payload))
	}
}

// While connections are renewed again and again, a slow publisher's batches all arrive, some of them twice.
func TestRenewalLosesNothing(t *testing.T) {
	t.Parallel()
	p := listen(t, PublisherOptions{})
	endpoint, _ := p.Endpoints()
	r := subscribedRenewing(t, endpoint, 20*time.Millisecond)
	joined(t, p, r)
	const n = 8
	for range n {
		p.Publish(nil)
		time.Sleep(150 * time.Millisecond) // the fault under test is made of time: silence between batches
	}
	arrived := map[uint64]int{}
	eventually(t, "every batch", func() bool {
		clear(arrived)
		frames, _ := r.seen()
		for _, f := range published(frames) {
			arrived[f.Seq]++
		}
		return len(arrived) == n
	})
}

func TestPublisherMayRestartOnItsPort(t *testing.T) {
	p := listen(t, PublisherOptions{})
	endpoint, router := p.Endpoints()
	r := subscribed(t, endpoint)
	joined(t, p, r)
	p.Publish([]byte("old"))
	eventually(t, "first life", func() bool { f, _ := r.seen(); return sequences(published(f)) == "0:old" })
	p.Close()
	p.Close()
	p, err := Listen(endpoint, router, PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	joined(t, p, r)
	p.Publish([]byte("new"))
	eventually(t, "second life", func() bool { f, _ := r.seen(); return sequences(published(f)) == "0:old 0:new" })
}

// Random bytes sent to both sockets, and by a server in the place of an engine, harm nobody.
func TestGarbageFromRawTCP(t *testing.T) {
	t.Parallel()
	p := listen(t, PublisherOptions{})
	endpoint, router := p.Endpoints()
	r := subscribed(t, endpoint)
	joined(t, p, r)
	garbage := [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{0xff}, 4096), {0}, make([]byte, 64),
		append([]byte("\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL"), make([]byte, 300)...),
	}
	for _, e := range []string{endpoint, router} {
		for _, g := range garbage {
			c, err := net.Dial("tcp", strings.TrimPrefix(e, "tcp://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(g)
			c.Close()
		}
	}
	p.Publish([]byte("alive"))
	eventually(t, "batch after garbage", func() bool { f, _ := r.seen(); return sequences(published(f)) == "0:alive" })
	if frames, err := replay(t, p, 0, ReplayOptions{}); err != nil || sequences(frames) != "0:alive" {
		t.Errorf("replay after garbage: %q %v", sequences(frames), err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(garbage[i%len(garbage)])
			c.Close()
		}
	}()
	victim := subscribed(t, "tcp://"+l.Addr().String())
	_ = Replay(t.Context(), "tcp://"+l.Addr().String(), 0, ReplayOptions{Idle: 300 * time.Millisecond}, func(Frame) {})
	l.Close()
	<-stopped
	if frames, _ := victim.seen(); len(frames) != 0 {
		t.Errorf("garbage became %d frames", len(frames))
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	p := listen(t, PublisherOptions{})
	endpoint, _ := p.Endpoints()
	r := subscribed(t, endpoint)
	joined(t, p, r)
	p.Publish([]byte("a"))
	p.DropLive(2)
	p.Publish([]byte("b"))
	p.Publish([]byte("c"))
	p.Skip()
	p.Publish([]byte("e"))
	eventually(t, "gap", func() bool { f, _ := r.seen(); return sequences(published(f)) == "0:a 4:e" })
	if frames, _ := replay(t, p, 0, ReplayOptions{}); sequences(frames) != "0:a 1:b 2:c 4:e" {
		t.Errorf("replay: %q", sequences(frames))
	}
	p.Forget()
	p.Publish([]byte("f"))
	if frames, _ := replay(t, p, 0, ReplayOptions{}); sequences(frames) != "5:f" {
		t.Errorf("replay after Forget: %q", sequences(frames))
	}
	p.Restart()
	p.Publish([]byte("g"))
	if frames, _ := replay(t, p, 0, ReplayOptions{}); sequences(frames) != "0:g" {
		t.Errorf("replay after Restart: %q", sequences(frames))
	}
}

func TestUnusableEndpoints(t *testing.T) {
	t.Parallel()
	var listening sync.WaitGroup
	for _, e := range []string{"", "tcp://127.0.0.1:%d", "tcp://127.0.0.1:1,tcp://127.0.0.1:2", "127.0.0.1:5557", "tcp://", "nosuch://x:1", "tcp://x:1\x00"} {
		if err := Subscribe(t.Context(), e, func(Frame) {}, nil); !errors.Is(err, ErrEndpoint) {
			t.Errorf("Subscribe(%q): %v", e, err)
		}
		if err := Replay(t.Context(), e, 0, ReplayOptions{}, func(Frame) {}); !errors.Is(err, ErrEndpoint) {
			t.Errorf("Replay(%q): %v", e, err)
		}
		listening.Go(func() { // each tries for a second, in case the port is about to be released
			if p, err := Listen(e, "", PublisherOptions{}); err == nil {
				p.Close()
				t.Errorf("Listen(%q) worked", e)
			}
		})
	}
	listening.Wait()
	if _, err := Listen("tcp://127.0.0.1:0", "tcp://127.0.0.1:%", PublisherOptions{}); !errors.Is(err, ErrEndpoint) {
		t.Errorf("Listen with a bad replay endpoint: %v", err)
	}
}

// czmq aborts the process at its 1,024th socket unless the limit was lifted in time.
func TestMoreThanAThousandSockets(t *testing.T) {
	if testing.Short() {
		t.Skip("1,100 threads")
	}
	p := listen(t, PublisherOptions{})
	endpoint, _ := p.Endpoints()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	heard := map[int]bool{}
	var all sync.WaitGroup
	const n = 1100
	for i := range n {
		all.Go(func() {
			_ = Subscribe(ctx, endpoint, func(Frame) {
				mu.Lock()
				defer mu.Unlock()
				heard[i] = true
			}, nil)
		})
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		p.Publish(nil)
		mu.Lock()
		got := len(heard)
		mu.Unlock()
		if got == n {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d of %d subscribers heard a batch", got, n)
			break
		}
	}
	cancel()
	all.Wait()
}
