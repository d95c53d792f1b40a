package capture

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// What is recorded from a publisher verifies, whatever the payloads are.
func TestRecordVerifies(t *testing.T) {
	payloads := goldenPayloads(t)
	golden := len(payloads)
	payloads = append(payloads, []byte{}, []byte("rubbish"), []byte("\x92\x00\xdd\xff\xff\xff\xff"),
		bytes.Repeat([]byte{0x91}, 10_000),
		kvevent.Append(nil, &kvevent.Batch{TS: math.NaN()}, kvevent.MapForm),
		kvevent.Append(nil, &kvevent.Batch{TS: math.Inf(-1)}, kvevent.ArrayForm),
		kvevent.Append(nil, &kvevent.Batch{TS: 1e300}, kvevent.MapForm),
		[]byte("\x92\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x91\x81\xa4type\xa1\xff")) // a name that is no UTF-8
	p, err := kvwire.Listen("tcp://127.0.0.1:0", "", kvwire.PublisherOptions{Topic: "kv@\"<&>\xe2\x80\xa8@model"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	endpoint, _ := p.Endpoints()

	var out bytes.Buffer
	record(t, p, payloads, &out, RecordOptions{Endpoint: endpoint, Frames: 2 * len(payloads)})
	result, said := verifyRaw(t, out.Bytes())
	if result != (Result{Cases: 2 * len(payloads)}) {
		t.Errorf("%+v\n%.800s", result, said)
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(out.Bytes()) {
		var r recorded
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		seen[r.Frames[2]] = true
		if time.Since(r.Received).Abs() > time.Minute {
			t.Errorf("received %v", r.Received)
		}
	}
	for i, payload := range payloads {
		if !seen[hex.EncodeToString(payload)] {
			t.Errorf("payload %d of %d golden ones is missing", i, golden)
		}
	}
}

// record publishes the payloads round and round until Record is done: a subscriber misses what came before it.
func record(t *testing.T, p *kvwire.Publisher, payloads [][]byte, out *bytes.Buffer, o RecordOptions) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		n, err := Record(ctx, out, o)
		if err == nil && n != o.Frames {
			err = errors.New("ended too early")
		}
		done <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		case <-tick.C:
			p.Publish(payloads[i%len(payloads)])
		}
	}
}

// goldenPayloads are the payloads of the frames files, each once.
func goldenPayloads(t *testing.T) [][]byte {
	t.Helper()
	var payloads [][]byte
	for _, file := range goldenFiles(t, "frames_*.jsonl") {
		for _, l := range readLines(t, filepath.Base(file)) {
			payload, err := hex.DecodeString(dig(l, "frames", 2).(string))
			if err != nil {
				t.Fatal(err)
			}
			if len(payload) < 4096 && !slices.ContainsFunc(payloads, func(p []byte) bool { return bytes.Equal(p, payload) }) {
				payloads = append(payloads, payload)
			}
		}
	}
	if len(payloads) < 50 {
		t.Fatalf("only %d payloads", len(payloads))
	}
	return payloads
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestRecordErrors(t *testing.T) {
	if _, err := Record(t.Context(), brokenWriter{}, RecordOptions{Endpoint: "nonsense%"}); err == nil {
		t.Error("a bad endpoint is no error")
	}
	if err := writeFrame(brokenWriter{}, kvwire.Frame{}); !errors.Is(err, errBroken) {
		t.Errorf("write: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := Record(ctx, brokenWriter{}, RecordOptions{Endpoint: "tcp://127.0.0.1:1"}); n != 0 || err != nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

// Plain values keep their types on the way through JSON.
func TestPlainThroughJSON(t *testing.T) {
	want := []any{nil, true, uint64(0), uint64(math.MaxUint64), int64(-1), int64(math.MinInt64), 1.0, 0.1, -1e300, math.Inf(1),
		math.NaN(), "", "text\u2028<", []byte{}, []byte{0, 255}, []any{}, map[string]any{"a": []any{1e21}, "$bytes": "no hex"}}
	raw, err := json.Marshal(toJSON(want))
	if err != nil {
		t.Fatal(err)
	}
	var read any
	if err := unmarshal(raw, &read); err != nil {
		t.Fatal(err)
	}
	// An object that looks like bytes, and nothing else would, is the one thing that cannot be told apart.
	got, err := fromJSON(read)
	if err != nil {
		t.Fatal(err)
	}
	if d := differ("value", want, got); d != "" {
		t.Error(d)
	}
	if d := differ("value", want, slices.Concat(want[:4], []any{int64(-2)}, want[5:])); !strings.HasPrefix(d, "value[4]: want -1") {
		t.Errorf("difference: %q", d)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("\x92\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x91\x91\xb0AllBlocksCleared"))
	f.Add([]byte("\xdd\xff\xff\xff\xff"))
	f.Add([]byte("\x81\xa2\xff0\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		plain, err := unpack(payload)
		if err != nil {
			return
		}
		raw, err := json.Marshal(toJSON(plain))
		if err != nil {
			t.Fatal(err)
		}
		var read any
		if err := unmarshal(raw, &read); err != nil {
			t.Fatal(err)
		}
		got, err := fromJSON(read)
		if strings.Contains(string(raw), `"$`) {
			return // looks like bytes or a float of ours
		}
		if d := differ("value", plain, got); err != nil || d != "" {
			t.Fatalf("%v %s", err, d)
		}
	})
}
