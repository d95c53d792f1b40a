package enginesim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"
	names "github.com/prometheus/common/model"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

const testModel = "Org/Model-1.0"

func start(t *testing.T, o Options) *Engine {
	t.Helper()
	o.Model, o.Adapters = testModel, []string{"sql", "poet"}
	e, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func quiesce(t *testing.T, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := e.Quiesce(ctx); err != nil {
		t.Fatal(err)
	}
}

// post sends a body and returns status and response; v, where not nil, gets the response's JSON.
func post(t *testing.T, e *Engine, path, body string, v any) (int, []byte) {
	t.Helper()
	resp, err := http.Post(e.URL()+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if v != nil {
		if err := json.Unmarshal(text, v); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	return resp.StatusCode, text
}

// reply is what the tests read of a response, streamed or whole.
type reply struct {
	ID      string
	Object  string
	Choices []struct {
		Index   int
		Text    string
		Message struct{ Content string }
		Delta   struct {
			Role, Content string
		}
		Reason string   `json:"finish_reason"`
		Tokens []uint32 `json:"token_ids"`
	}
	Usage *usage
}

// stream posts a body and returns the events of the response.
func stream(t *testing.T, e *Engine, path, body string) []reply {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL()+path, strings.NewReader(body))
	req.Header.Set("X-Request-Id", "my-id")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Request-Id") != "my-id" ||
		resp.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	events := strings.Split(string(text), "\n\n")
	if n := len(events); n < 2 || events[n-1] != "" || events[n-2] != "data: [DONE]" {
		t.Fatalf("stream ends with %q", events[max(0, n-2):])
	}
	var all []reply
	for _, event := range events[:len(events)-2] {
		var r reply
		data, ok := strings.CutPrefix(event, "data: ")
		if err := json.Unmarshal([]byte(data), &r); err != nil || !ok {
			t.Fatalf("%v in %q", err, event)
		}
		all = append(all, r)
	}
	return all
}

// received collects the frames of a subscription.
type received struct {
	mu     sync.Mutex
	frames []kvwire.Frame
}

func (r *received) last() (frames []kvwire.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.frames)
}

func subscribe(t *testing.T, endpoint string) *received {
	t.Helper()
	r := &received{}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		_ = kvwire.Subscribe(ctx, endpoint, func(f kvwire.Frame) {
			r.mu.Lock()
			r.frames = append(r.frames, f)
			r.mu.Unlock()
		}, nil)
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return r
}

// eventually polls until ok, for 10 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func foldFrames(t *testing.T, frames []kvwire.Frame) *fold {
	t.Helper()
	f := newFold()
	var d kvevent.Decoder
	for i, frame := range frames {
		if frame.Seq != uint64(i) {
			t.Fatalf("frame %d has sequence %d", i, frame.Seq)
		}
		var b kvevent.Batch
		if err := d.Decode(frame.Payload, &b); err != nil || b.Bad+b.Ignored > 0 || !b.HasRank || b.Rank != 3 {
			t.Fatalf("%v in %+v", err, b)
		}
		f.add(t, b.Events)
	}
	return f
}

// The events that leave by ZeroMQ add up to the cache, live and replayed, in both encodings.
func TestEventsOverZeroMQ(t *testing.T) {
	for _, encoding := range []kvevent.Encoding{kvevent.MapForm, kvevent.ArrayForm} {
		e := start(t, Options{
			Profile: slow, TimeScale: 200, Blocks: 120, Rank: 3, Encoding: encoding,
			Events: "tcp://127.0.0.1:0", Replay: "tcp://127.0.0.1:0", Topic: "kv-events",
		})
		live := subscribe(t, e.Events())
		// A subscription takes hold at an unknown time: what was missed is replayed.
		var clients sync.WaitGroup
		for i := range 30 {
			clients.Go(func() {
				model := []string{testModel, "sql", "poet"}[i%3]
				post(t, e, "/v1/completions", fmt.Sprintf(
					`{"model":%q,"prompt":"%s","max_tokens":%d}`, model, strings.Repeat(" abc def", 20+i%4), 30+i), nil)
			})
		}
		clients.Wait()
		quiesce(t, e)
		var all []kvwire.Frame
		if err := kvwire.Replay(t.Context(), e.Replay(), 0, kvwire.ReplayOptions{}, func(f kvwire.Frame) { all = append(all, f) }); err != nil {
			t.Fatal(err)
		}
		f := foldFrames(t, all)
		if !maps.Equal(f.copies, e.Cached()) || f.removed == 0 {
			t.Fatalf("events hold %d hashes, the cache %d; %d removed", len(f.copies), len(e.Cached()), f.removed)
		}
		eventually(t, "the live stream reaches the last batch", func() bool {
			got := live.last()
			return len(got) > 0 && got[len(got)-1].Seq == all[len(all)-1].Seq
		})
		got := live.last()
		for _, frame := range got {
			if !bytes.Equal(frame.Payload, all[frame.Seq].Payload) || string(frame.Topic) != "kv-events" {
				t.Fatalf("batch %d was replayed differently", frame.Seq)
			}
		}
	}
}

func TestEventsLeaveWhenTheStepEndsOrBegins(t *testing.T) {
	for _, early := range []bool{false, true} {
		e := start(t, Options{
			Rank: 3, Profile: Profile{Base: 1e6}, EarlyEvents: early, Events: "tcp://127.0.0.1:0", Replay: "tcp://127.0.0.1:0",
		})
		_ = e.submit([]*Request{{ID: "a", Prompt: sequential(0, 40), MaxTokens: 1}})
		eventually(t, "the step begins", func() bool { return e.Stats().Steps == 1 })
		published := func() int {
			n := 0
			if err := kvwire.Replay(t.Context(), e.Replay(), 0, kvwire.ReplayOptions{}, func(kvwire.Frame) { n++ }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if early {
			eventually(t, "the events are out", func() bool { return published() == 1 })
		} else if n := published(); n != 0 {
			t.Errorf("%d batches before the step has ended", n)
		}
	}
}

func TestRestartBeginsANewLife(t *testing.T) {
	e := start(t, Options{Blocks: 400, Rank: 3, Profile: Profile{Base: 150}, Events: "tcp://127.0.0.1:0", Replay: "tcp://127.0.0.1:0"})
	post(t, e, "/v1/completions", `{"prompt":"`+strings.Repeat(" abc", 64)+`","max_tokens":1}`, nil)
	quiesce(t, e)
	first := e.Cached()
	status := make(chan int)
	go func() {
		code, _ := post(t, e, "/v1/completions", `{"prompt":"`+strings.Repeat(" xyz", 64)+`","max_tokens":5000}`, nil)
		status <- code
	}()
	eventually(t, "a request runs", func() bool { return e.Stats().Running == 1 })
	if err := e.Restart(); err != nil {
		t.Fatal(err)
	}
	if code := <-status; code != 500 {
		t.Fatalf("a request of the old life ended with %d", code)
	}
	if s := e.Stats(); s.Free != 400 || s.Cached != 0 || s.Queries != 0 || len(first) != 4 {
		t.Fatalf("%+v", s)
	}
	post(t, e, "/v1/completions", `{"prompt":"`+strings.Repeat(" abc", 64)+`","max_tokens":1}`, nil)
	quiesce(t, e)
	for hash := range e.Cached() {
		if first[hash] != 0 {
			t.Fatal("hashes of an engine without a seed outlived its restart")
		}
	}
	var all []kvwire.Frame
	if err := kvwire.Replay(t.Context(), e.Replay(), 0, kvwire.ReplayOptions{}, func(f kvwire.Frame) { all = append(all, f) }); err != nil {
		t.Fatal(err)
	}
	if f := foldFrames(t, all); !maps.Equal(f.copies, e.Cached()) {
		t.Fatal("the new life's events are not its cache")
	}
}

func TestDisconnectFreesBlocks(t *testing.T) {
	e := start(t, Options{Profile: Profile{Base: 5}, Blocks: 256})
	for _, stream := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, e.URL()+"/v1/completions", strings.NewReader(
			fmt.Sprintf(`{"prompt":"%s","max_tokens":3000,"n":2,"stream":%v}`, strings.Repeat(" abc", 100), stream)))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, bufio.NewReader(resp.Body))
				resp.Body.Close()
			}
		}()
		eventually(t, "both choices run", func() bool { return e.Stats().Running == 2 })
		cancel()
		<-done
		eventually(t, "blocks are free", func() bool { s := e.Stats(); return s.Running+s.Waiting == 0 && s.Free == 256 })
	}
	if families := scrape(t, e); families["vllm:request_success_total"] < 4 {
		t.Errorf("aborts are not counted: %v", families)
	}
}

// scrape returns the sum of each metric's series: values, or counts of histograms.
func scrape(t *testing.T, e *Engine) map[string]float64 {
	t.Helper()
	resp, err := http.Get(e.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(names.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if strings.HasPrefix(name, "vllm:") && (labels["model_name"] != testModel || labels["engine"] != "0") {
				t.Errorf("%s has labels %v", name, labels)
			}
			if name == "vllm:cache_config_info" && (labels["block_size"] != "16" || labels["num_gpu_blocks"] != "256") {
				t.Errorf("%s has labels %v", name, labels)
			}
			sums[name] += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sums
}

func TestMetrics(t *testing.T) {
	e := start(t, Options{Blocks: 256})
	for _, n := range []int{7, 1} {
		post(t, e, "/v1/completions", fmt.Sprintf(`{"prompt":"%s","max_tokens":%d}`, strings.Repeat(" abc", 50), n), nil)
	}
	quiesce(t, e)
	got := scrape(t, e)
	for name, want := range map[string]float64{
		"vllm:prefix_cache_queries_total": 100, "vllm:prefix_cache_hits_total": 48, "vllm:prompt_tokens_total": 100,
		"vllm:generation_tokens_total": 8, "vllm:num_preemptions_total": 0, "vllm:request_success_total": 2,
		"vllm:time_to_first_token_seconds": 2, "vllm:inter_token_latency_seconds": 6, "vllm:num_requests_running": 0,
		"vllm:num_requests_waiting": 0, "vllm:kv_cache_usage_perc": 0, "vllm:cache_config_info": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
	var r struct{ Success bool }
	if post(t, e, "/reset_prefix_cache", ``, &r); !r.Success || len(e.Cached()) != 0 {
		t.Error("the cache did not reset")
	}
}

// The time of n steps is exactly the sum of their own times, in a real loop with a fake clock.
func TestStepsEndOnAbsoluteDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Qwen3_32B_TP2_H100
		e := newEngine(Options{Model: "m", Profile: p, TimeScale: 10}.withDefaults())
		go e.run(t.Context())
		synctest.Wait()
		time.Sleep(time.Hour) // idle time counts for nothing
		begin := time.Now()
		c := newCall()
		if err := e.submit([]*Request{{ID: "a", Prompt: sequential(0, 100), MaxTokens: 500, Tag: &choice{call: c}}}); err != nil {
			t.Fatal(err)
		}
		if err := e.Quiesce(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := p.StepTime(Load{PrefillTokens: 100, TokenPairs: 5000}) / 10
		for i := 1; i < 500; i++ {
			want += p.StepTime(Load{Decodes: 1, ContextTokens: 100 + i}) / 10
		}
		if got := time.Since(begin); got != want {
			t.Fatalf("500 steps took %v, their times add up to %v", got, want)
		}
		if tokens, _ := c.take(nil); len(tokens) != 500 {
			t.Fatalf("%d tokens", len(tokens))
		}
	})
}

// A late driver catches up: deadlines do not depend on when they are asked for.
func TestClock(t *testing.T) {
	epoch := time.Unix(0, 0)
	c := clock{scale: 2}
	if got := c.next(epoch.Add(time.Second), 4*time.Second); got != epoch.Add(3*time.Second) {
		t.Fatal(got)
	}
	for i := range 100 {
		if got := c.next(epoch.Add(time.Second), 20*time.Millisecond); got != epoch.Add(3*time.Second+time.Duration(i+1)*10*time.Millisecond) {
			t.Fatal(i, got)
		}
	}
	if got := c.next(epoch.Add(time.Hour), time.Second); got != epoch.Add(time.Hour+500*time.Millisecond) {
		t.Fatal(got)
	}
}

// A request whose last step is under way when the engine restarts gets its end too.
func TestRestartEndsWhatItsLastStepWouldHaveFinished(t *testing.T) {
	e := start(t, Options{Blocks: 400, Profile: Profile{Base: 150}})
	status := make(chan int)
	go func() {
		code, _ := post(t, e, "/v1/completions", `{"prompt":"one step","max_tokens":1}`, nil)
		status <- code
	}()
	eventually(t, "the last step is under way", func() bool { return e.Stats().Finished == 1 })
	if err := e.Restart(); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-status:
		if code != 500 {
			t.Fatalf("a request of the old life ended with %d", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a request of the old life waits for ever")
	}
}

// Those who watch an engine hear of each completion, once it is in the queue, and of each step.
func TestWatchersHearOfRequestsAndSteps(t *testing.T) {
	submitted, stepped := make(chan string, 10), make(chan time.Duration, 1000)
	e := start(t, Options{
		Profile:   Profile{Base: 2},
		Submitted: func(id string) { submitted <- id },
		Stepped:   func(late time.Duration) { stepped <- late },
	})
	stream(t, e, "/v1/completions", `{"model":"`+testModel+`","prompt":"one two three","max_tokens":5,"stream":true}`)
	if code, _ := post(t, e, "/v1/completions", `{"model":"`+testModel+`","prompt":[1],"max_tokens":-1}`, nil); code != http.StatusBadRequest {
		t.Errorf("status %d", code)
	}
	quiesce(t, e)
	if id := <-submitted; id != "my-id" || len(submitted) > 0 {
		t.Errorf("heard of request %q and of %d more", id, len(submitted))
	}
	if n := e.Stats().Steps; n != 5 || int64(len(stepped)) != n {
		t.Errorf("heard of %d of %d steps", len(stepped), n)
	}
	for range len(stepped) {
		if late := <-stepped; late < 0 || late > 20*time.Second {
			t.Errorf("a step ended %s after its deadline", late)
		}
	}
}
