package kvwire

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

func replay(t *testing.T, p *Publisher, from uint64, o ReplayOptions) ([]Frame, error) {
	t.Helper()
	_, endpoint := p.Endpoints()
	var frames []Frame
	err := Replay(t.Context(), endpoint, from, o, func(f Frame) { frames = append(frames, f) })
	return frames, err
}

func TestReplayGivesWhatIsKept(t *testing.T) {
	t.Parallel()
	for _, legacy := range []bool{false, true} {
		p := listen(t, PublisherOptions{Topic: "t", BufferSteps: 4, Legacy: legacy})
		if frames, err := replay(t, p, 0, ReplayOptions{}); err != nil || len(frames) != 0 {
			t.Fatalf("replay of nothing: %v %v", frames, err)
		}
		for _, payload := range []string{"a", "b", "c", "", "e", "f"} {
			p.Publish([]byte(payload))
		}
		for from, want := range map[uint64]string{
			0: "2:c 3: 4:e 5:f", 2: "2:c 3: 4:e 5:f", 5: "5:f", 6: "", 1 << 60: "",
		} {
			frames, err := replay(t, p, from, ReplayOptions{})
			if err != nil || sequences(frames) != want {
				t.Errorf("legacy %v, from %d: got %q (%v), want %q", legacy, from, sequences(frames), err, want)
			}
			for _, f := range frames {
				if legacy != (f.Topic == nil) {
					t.Errorf("legacy %v: topic %q", legacy, f.Topic)
				}
			}
		}
	}
}

// full publishes as many batches as vLLM keeps.
func full(t *testing.T, o PublisherOptions) *Publisher {
	p := listen(t, o)
	payload := bytes.Repeat([]byte("x"), 3000)
	for range 10_000 {
		p.Publish(payload)
	}
	return p
}

func TestReplayOfFullBufferIsComplete(t *testing.T) {
	t.Parallel()
	frames, err := replay(t, full(t, PublisherOptions{}), 0, ReplayOptions{})
	if err != nil || len(frames) != 10_000 {
		t.Fatalf("got %d batches and %v", len(frames), err)
	}
	for i, f := range frames {
		if f.Seq != uint64(i) {
			t.Fatalf("batch %d is %d", i, f.Seq)
		}
	}
}

// A ROUTER with a limit drops replies, and perhaps the end mark. Asking again from the first hole must end complete.
func TestAskingAgainFillsHoles(t *testing.T) {
	t.Parallel()
	p := full(t, PublisherOptions{ReplayLimit: 1000})
	_, endpoint := p.Endpoints()
	next, asked, patience := uint64(0), 0, 50*time.Millisecond
	for ; next < 10_000 && asked < 1000; asked++ {
		before := next
		err := Replay(t.Context(), endpoint, next, ReplayOptions{Idle: patience}, func(f Frame) {
			if f.Seq == next {
				next++
			}
		})
		if next == before { // the answers to those that gave up come first: on a busy machine they need not be ours
			patience = min(2*patience, 5*time.Second)
		}
		if err != nil && !errors.Is(err, ErrIdle) {
			t.Fatal(err)
		}
	}
	t.Logf("asked %d times", asked)
	if next != 10_000 {
		t.Errorf("complete up to %d", next)
	}
}

func TestReplayIsBounded(t *testing.T) {
	p := listen(t, PublisherOptions{})
	for range 100 {
		p.Publish(make([]byte, 1000))
	}
	frames, err := replay(t, p, 0, ReplayOptions{MaxBytes: 50_000})
	if !errors.Is(err, ErrTooLarge) || len(frames) != 50 {
		t.Errorf("got %d frames and %v", len(frames), err)
	}
}

func TestReplayGivesUpOnSilence(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	err = Replay(t.Context(), "tcp://"+l.Addr().String(), 0, ReplayOptions{Idle: 50 * time.Millisecond}, func(Frame) {})
	if !errors.Is(err, ErrIdle) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = Replay(ctx, "tcp://"+l.Addr().String(), 0, ReplayOptions{}, func(Frame) {})
	if !errors.Is(err, context.Canceled) || time.Since(began) > 3*time.Second {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
}

// What genuine engines answered (frames as a DEALER sees them) must be read, and be what we answer ourselves.
func TestGoldenReplies(t *testing.T) {
	for _, name := range []string{"v0.9.2", "v0.23.0", "main-2026-06-23", "main-2026-08-17"} {
		data, err := os.ReadFile("../kvevent/testdata/golden/replay_" + name + ".jsonl")
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for line := range bytes.Lines(data) {
			var c struct {
				Reply [][]string `json:"reply_messages"`
			}
			if err := json.Unmarshal(line, &c); err != nil {
				t.Fatal(err)
			}
			for _, message := range c.Reply {
				var parts [][]byte
				for _, h := range message {
					b, err := hex.DecodeString(h)
					if err != nil {
						t.Fatal(err)
					}
					parts = append(parts, b)
				}
				if len(parts[0]) != 0 {
					continue // a REQ client, which has lost its delimiter
				}
				f, reason := reply(parts, len(parts))
				if reason != "" || (f.Seq == endSeq) != (len(f.Payload) == 0) || (f.Seq != endSeq && f.Seq > 5) {
					t.Errorf("%s: %v read as %d, %d bytes, %q", name, message, f.Seq, len(f.Payload), reason)
				}
				read++
			}
		}
		if read == 0 {
			t.Errorf("%s: nothing read", name)
		}
	}
}
