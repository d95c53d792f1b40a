package hop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/warmpath/warmpath/loadgen/process"
)

// Headers by which the client tells an engine what to do; the router passes what it does not know.
const (
	bodyHeader   = "X-Bench-Body"   // name of the payload
	wayHeader    = "X-Bench-Way"    // direct or routed
	numberHeader = "X-Bench-Number" // of the request
	chunksHeader = "X-Bench-Chunks" // of the answer
	gapHeader    = "X-Bench-Gap"    // microseconds between chunks; 0 is all at once
)

const (
	direct = "direct"
	routed = "routed"
)

// load is what backend and scorer must know of the bodies that will come.
type load struct {
	Sizes   []int // of bodies
	Engines int
	NATS    string
}

func (l load) payloads() map[string]*payload {
	all := make(map[string]*payload)
	for _, size := range l.Sizes {
		for v := range variants {
			p := newPayload(size, v, l.Engines)
			all[p.name] = p
		}
	}
	return all
}

// backend is the role of all engines: each answers at once, on a port of its own, and refuses a body that differs in
// one byte from what it should be.
type backend struct {
	payloads map[string]*payload
	buffers  sync.Pool // of *bytes.Buffer
	servers  []*http.Server
}

func startBackend(_ context.Context, config []byte) (process.Role, any, error) {
	var cfg load
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	b := &backend{payloads: cfg.payloads()}
	b.buffers.New = func() any { return new(bytes.Buffer) }
	var addresses []string
	for range cfg.Engines {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Close()
			return nil, nil, err
		}
		mux := http.NewServeMux()
		mux.HandleFunc("POST /v1/chat/completions", b.chat)
		mux.HandleFunc("GET /metrics", metrics)
		server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(listener) }() // ends with Close
		b.servers, addresses = append(b.servers, server), append(addresses, listener.Addr().String())
	}
	return b, addresses, nil
}

func (b *backend) Handle(context.Context, string, []byte) (any, error) {
	return nil, process.ErrUnknownCall
}

func (b *backend) Close() {
	for _, s := range b.servers {
		_ = s.Close()
	}
}

func (b *backend) chat(w http.ResponseWriter, r *http.Request) {
	buf := b.buffers.Get().(*bytes.Buffer)
	defer b.buffers.Put(buf)
	buf.Reset()
	if _, err := io.Copy(buf, r.Body); err != nil {
		return // the client has gone
	}
	if why := b.wrong(r.Header, buf.Bytes()); why != "" {
		http.Error(w, why, http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	events := answer(number(r.Header, numberHeader), int(number(r.Header, chunksHeader)), r.Header.Get(wayHeader) == routed)
	gap := time.Duration(number(r.Header, gapHeader)) * time.Microsecond
	if gap == 0 {
		_, _ = w.Write(bytes.Join(events, nil)) // the client's loss
		return
	}
	paced(r.Context(), w, events, gap)
}

// paced sends one event a gap, on absolute deadlines.
func paced(ctx context.Context, w http.ResponseWriter, events [][]byte, gap time.Duration) {
	control, due := http.NewResponseController(w), time.Now()
	for _, event := range events {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		if _, err := w.Write(event); err != nil || control.Flush() != nil {
			return
		}
		due = due.Add(gap)
	}
}

// wrong says how a body differs from what it must be.
func (b *backend) wrong(h http.Header, body []byte) string {
	p := b.payloads[h.Get(bodyHeader)]
	if p == nil {
		return "no such body: " + h.Get(bodyHeader)
	}
	want := p.plain
	if h.Get(wayHeader) == routed {
		want = p.patched
	}
	if !bytes.Equal(body, want) {
		return fmt.Sprintf("the body of %d bytes is not the one of %d bytes that must arrive", len(body), len(want))
	}
	return ""
}

func number(h http.Header, name string) uint64 {
	n, _ := strconv.ParseUint(h.Get(name), 10, 64)
	return n
}

// metrics are the few of vLLM's that a router reads of each engine.
func metrics(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintf(w, `# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name=%[1]q} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name=%[1]q} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name=%[1]q} 0.4
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="20000",enable_prefix_caching="True",engine="0"} 1.0
`, modelID)
}
