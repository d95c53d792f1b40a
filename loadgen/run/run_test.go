package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

func trace(at ...time.Duration) workload.Trace {
	var t workload.Trace
	for i, a := range at {
		t.Requests = append(t.Requests, workload.Request{At: a, Input: 20 + i, Output: 3, Blocks: []uint64{uint64(i)}})
	}
	return t
}

func serve(t *testing.T, h http.HandlerFunc) Options {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Options{URL: s.URL, Model: "m", Timeout: 20 * time.Second}
}

const (
	token = `data: {"choices":[{"index":0,"text":"\"prompt_tokens\" x"}],"usage":null}` + "\n\n"
	usage = `data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":64}}}` + "\n\n"
	done  = "data: [DONE]\n\n"
)

func flush(w http.ResponseWriter, s string) {
	io.WriteString(w, s)
	w.(http.Flusher).Flush()
}

func TestRequestIsWhatTheTraceSays(t *testing.T) {
	type body struct {
		Model         string
		Prompt        []uint32
		MaxTokens     int  `json:"max_tokens"`
		IgnoreEOS     bool `json:"ignore_eos"`
		Stream        bool
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	got := make(chan body, 1)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var b body
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil || r.URL.Path != "/v1/completions" || r.Header.Get("Authorization") != "Bearer k" {
			t.Errorf("%s with key %q: %v", r.URL.Path, r.Header.Get("Authorization"), err)
		}
		got <- b
		w.Header().Set(EngineHeader, "engine-1")
		flush(w, token+token+usage+done)
	})
	o.Model, o.Key, o.URL = `say "m"`, "k", o.URL+"/"
	tr := trace(0)
	res, err := Drive(t.Context(), o, tr)
	if err != nil {
		t.Fatal(err)
	}
	want := body{Model: o.Model, Prompt: workload.Tokens{}.Append(nil, tr.Requests[0]), MaxTokens: 3, IgnoreEOS: true, Stream: true}
	want.StreamOptions.IncludeUsage = true
	if b := <-got; !reflect.DeepEqual(b, want) {
		t.Errorf("sent %+v, want %+v", b, want)
	}
	out := res.Outcomes[0]
	if out.Err != nil || out.Prompt != 100 || out.Cached != 64 || out.Output != 7 || out.Engine != "engine-1" || out.Chunks != 2 {
		t.Errorf("outcome %+v", out)
	}
}

// No answer ends before the last request has been sent: a closed loop would wait for ever.
func TestDriverIsAnOpenLoop(t *testing.T) {
	const n = 40
	var arrived sync.WaitGroup
	arrived.Add(n)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait()
		flush(w, token+usage+done)
	})
	var at []time.Duration
	for i := range n {
		at = append(at, time.Duration(i)*20*time.Millisecond)
	}
	o.TimeScale = 10
	calls := 0
	o.Progress = func(done, all int, _ Outcome) {
		if calls++; done != calls || all != n {
			t.Errorf("progress %d of %d at call %d", done, all, calls)
		}
	}
	res, err := Drive(t.Context(), o, trace(at...))
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Outcomes) != n || calls != n {
		t.Fatalf("%d outcomes and %d calls of progress for %d requests", len(res.Outcomes), calls, n)
	}
	for i, out := range res.Outcomes {
		if out.Request != i || out.Intended != at[i] || out.Sent < at[i] || out.Err != nil {
			t.Errorf("outcome %d: %+v", i, out)
		}
		if out.First < at[n-1] {
			t.Errorf("request %d got its first token at %s, before the last request was due", i, out.First)
		}
	}
}

// Requests carry the ids that they are given, and each waits until Sent lets it go.
func TestSentHoldsTheNextRequestBack(t *testing.T) {
	const n = 5
	arrived := make(chan string, n)
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.Header.Get("X-Request-Id")
		flush(w, token+usage+done)
	})
	o.RequestID = func(request int) string { return fmt.Sprint("r", request) }
	var got []string
	o.Sent = func(_ context.Context, request int) {
		if len(arrived) > 1 {
			t.Errorf("%d requests under way after request %d was sent", len(arrived), request)
		}
		got = append(got, <-arrived)
	}
	before := time.Now()
	res, err := Drive(t.Context(), o, trace(0, 0, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"r0", "r1", "r2", "r3", "r4"}; !slices.Equal(got, want) {
		t.Errorf("ids %q in order of arrival, want %q", got, want)
	}
	if res.Start.Before(before) || res.Start.After(time.Now()) {
		t.Errorf("the trace began at %s", res.Start)
	}
}

func TestTimesAreUnscaled(t *testing.T) {
	const wait, gap = 30 * time.Millisecond, 10 * time.Millisecond
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		<-time.After(wait)
		flush(w, token)
		<-time.After(gap)
		flush(w, token+usage+done)
	})
	o.TimeScale = 100
	start := time.Now()
	res, err := Drive(t.Context(), o, trace(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	out, took := res.Outcomes[0], time.Since(start)
	if ttft := out.TTFT(); ttft < 100*wait || ttft > 100*took {
		t.Errorf("TTFT %s of trace time for %s of wall time at scale 100", ttft, wait)
	}
	if out.Last-out.Sent < 100*(wait+gap) || out.Last-out.Sent > 100*took {
		t.Errorf("last token after %s of trace time for %s of wall time at scale 100", out.Last-out.Sent, wait+gap)
	}
	if out.Chunks != 2 || out.ITL() != (out.Last-out.First)/time.Duration(out.Output-1) {
		t.Errorf("%d chunks, %s between tokens from %s to %s", out.Chunks, out.ITL(), out.First, out.Last)
	}
}

func TestConcurrencyIsBoundedAndLateRequestsCounted(t *testing.T) {
	var flying, most atomic.Int64
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := flying.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-time.After(2 * LateAfter)
		flying.Add(-1)
		flush(w, token+usage+done)
	})
	o.Concurrency = 2
	res, err := Drive(t.Context(), o, trace(0, 0, 0, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if most.Load() > 2 {
		t.Errorf("%d requests in flight, bound 2", most.Load())
	}
	if s := res.Summary(); s.Late < 4 || s.LateMaxS < (4*LateAfter).Seconds() || s.Errors != 0 {
		t.Errorf("four of six requests had to wait for others: %+v", s)
	}
	for _, out := range res.Outcomes {
		if out.TTFT() < out.Sent-out.Intended {
			t.Errorf("TTFT %s leaves out the time before the request was sent: %+v", out.TTFT(), out)
		}
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   error
		says   string
		output int
	}{
		"refused":         {func(w http.ResponseWriter) { http.Error(w, "too busy", http.StatusServiceUnavailable) }, ErrStatus, "status 503: too busy", 0},
		"cut off":         {func(w http.ResponseWriter) { flush(w, token+token) }, ErrStream, "after 2 chunks", 2},
		"no token":        {func(w http.ResponseWriter) { flush(w, usage+done) }, ErrStream, "after 0 chunks", 7},
		"error in stream": {func(w http.ResponseWriter) { flush(w, token+`data: {"error":{"message":"engine died"}}`+"\n\n") }, ErrStream, "engine died", 1},
		"not JSON":        {func(w http.ResponseWriter) { flush(w, token+`data: {"error"`+"\n\n"+done) }, ErrStream, "read chunk", 1},
		"endless event":   {func(w http.ResponseWriter) { flush(w, "data: "+strings.Repeat("x", maxEvent+1)+"\n\n"+done) }, ErrStream, "", 0},
		"hangs up": {func(w http.ResponseWriter) {
			flush(w, token)
			panic(http.ErrAbortHandler)
		}, ErrStream, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := serve(t, func(w http.ResponseWriter, r *http.Request) { c.answer(w) })
			res, err := Drive(t.Context(), o, trace(0))
			if err != nil {
				t.Fatal(err)
			}
			out := res.Outcomes[0]
			if !errors.Is(out.Err, c.want) || !strings.Contains(fmt.Sprint(out.Err), c.says) || out.Output != c.output {
				t.Errorf("outcome %+v, want error %v saying %q and %d tokens", out, c.want, c.says, c.output)
			}
			if s := res.Summary(); s.Errors != 1 || s.Requests != 1 || s.TTFTP50 != 0 {
				t.Errorf("summary %+v", s)
			}
		})
	}
}

func TestCancelStopsTheRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		flush(w, token)
		cancel()
		<-r.Context().Done()
	})
	res, err := Drive(ctx, o, trace(0, time.Hour))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(res.Outcomes) != 1 || res.Outcomes[0].Err == nil {
		t.Errorf("outcomes %+v, want the one request that was in flight, failed", res.Outcomes)
	}
}

func TestBadOptions(t *testing.T) {
	good := Options{URL: "http://h", Model: "m"}
	for name, spoil := range map[string]func(*Options){
		"no URL":         func(o *Options) { o.URL = "" },
		"no scheme":      func(o *Options) { o.URL = "host:80" },
		"no model":       func(o *Options) { o.Model = "" },
		"negative":       func(o *Options) { o.TimeScale = -1 },
		"backwards":      func(o *Options) { o.Timeout = -1 },
		"no room at all": func(o *Options) { o.Concurrency = -1 },
	} {
		o := good
		spoil(&o)
		if _, err := Drive(t.Context(), o, trace()); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := Drive(t.Context(), good, trace()); err != nil {
		t.Errorf("good options, empty trace: %v", err)
	}
}

func TestSummary(t *testing.T) {
	s := time.Second
	r := Result{TimeScale: 10, Outcomes: []Outcome{
		{Intended: 10 * s, Sent: 10 * s, First: 11 * s, Last: 20 * s, Prompt: 100, Cached: 30, Output: 37, Engine: "b"},
		{Intended: 11 * s, Sent: 12 * s, First: 14 * s, Last: 30 * s, Prompt: 300, Cached: 70, Output: 51, Engine: "b"},
		{Intended: 12 * s, Sent: 12 * s, First: 14 * s, Last: 15 * s, Prompt: 1000, Cached: -1, Output: 12, Engine: "z"},
		{Intended: 12 * s, Sent: 12*s + 10*LateAfter, Prompt: 1000, Cached: -1, Err: ErrStatus, Last: 12 * s},
	}}
	got := r.Summary("a", "b")
	want := Summary{
		Requests: 4, HitRatio: .25, TTFTP50: 2, TTFTP90: 3, ITLP50: .25, OutputTok: 5,
		Engines: []string{"a", "b", "z"}, PerEngine: []int{0, 2, 1}, Errors: 1, Late: 1, LateMaxS: 1,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("summary %+v, want %+v", got, want)
	}
	empty, err := json.Marshal((&Result{}).Summary())
	if err != nil || strings.Contains(string(empty), "null") {
		t.Errorf("summary of nothing is %s, %v", empty, err)
	}
	for _, key := range []string{"requests", "hit_ratio", "ttft_p50_s", "ttft_p90_s", "itl_p50_s", "output_tok_s", "per_engine"} {
		if !strings.Contains(string(empty), `"`+key+`":`) {
			t.Errorf("summary has no %s: %s", key, empty)
		}
	}
}

func TestQuantileIsTheNearestRank(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, .2: 1, .21: 2, .5: 3, .9: 5, 1: 5} {
		if got := quantile(slices.Clone(values), q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

// Several endpoints get requests in turn, in order of the trace.
func TestRequestsGoToEndpointsInTurn(t *testing.T) {
	var o Options
	for i := range 3 {
		one := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(EngineHeader, fmt.Sprint("behind ", i))
			flush(w, token+done)
		})
		if i == 0 {
			o = one
		} else {
			o.Others = append(o.Others, one.URL)
		}
	}
	res, err := Drive(t.Context(), o, trace(0, 0, 0, 0, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i, out := range res.Outcomes {
		if want := fmt.Sprint("behind ", i%3); out.Engine != want || out.Err != nil {
			t.Errorf("request %d came to %q, not %q: %v", i, out.Engine, want, out.Err)
		}
	}
	o.Others[1] = "nowhere"
	if _, err := Drive(t.Context(), o, trace(0)); !errors.Is(err, ErrOptions) {
		t.Errorf("error %v", err)
	}
}
