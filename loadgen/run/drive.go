// Package run sends a workload to an OpenAI endpoint and measures what comes back.
//
// The driver is an open loop: each request has an absolute deadline from its trace time and is sent then, whatever
// became of those before it, so a slow server is not spared the load that it is slow under. It does not retry, does
// not choose engines, and does not judge results: package report does.
package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// EngineHeader is the response header in which the router names the engine that served a request.
const EngineHeader = "x-warmpath-engine"

// ErrOptions is wrapped by the error that unusable Options cause.
var ErrOptions = errors.New("bad load options")

// Options say where a workload goes, and how fast. URL and Model must be set.
type Options struct {
	URL    string   // of the endpoint, without /v1
	Others []string // URLs of more endpoints: it and they get requests in turn
	Model  string
	Key    string // API key; none where empty
	// TimeScale divides trace times: at 10 a trace of 300 s takes 30 s. The engines must be as much faster. 0 means 1.
	TimeScale float64
	// Concurrency bounds the requests in flight; 0 means 1024. Requests that it delays are sent late and counted.
	Concurrency int
	Timeout     time.Duration // of one request, in wall time; 0 means 10 minutes
	Tokens      workload.Tokens
	Client      *http.Client                      // nil means one of its own that keeps Concurrency connections
	Progress    func(done, all int, last Outcome) // called after each request, from one goroutine at a time; may be nil
	// RequestID gives a request its X-Request-Id; nil leaves that to the endpoint.
	RequestID func(request int) string
	// Sent, if not nil, is called once a request is on its way; the next one is not sent before it returns.
	Sent func(ctx context.Context, request int)
}

func (o *Options) complete() error {
	o.TimeScale = cmp.Or(o.TimeScale, 1)
	o.Concurrency = cmp.Or(o.Concurrency, 1024)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Minute)
	if o.TimeScale < 0 || o.Concurrency < 0 || o.Timeout < 0 {
		return fmt.Errorf("%w: time scale, concurrency and timeout must not be negative", ErrOptions)
	}
	if o.Model == "" {
		return fmt.Errorf("%w: no model", ErrOptions)
	}
	for i := range 1 + len(o.Others) {
		raw := o.endpoint(i)
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%w: URL %q is not http://HOST or https://HOST", ErrOptions, raw)
		}
	}
	return nil
}

// endpoint is the URL that a request goes to.
func (o *Options) endpoint(request int) string {
	if i := request % (1 + len(o.Others)); i > 0 {
		return o.Others[i-1]
	}
	return o.URL
}

// Outcome is what became of one request. Times and gaps are in trace time: wall time multiplied by the time scale.
type Outcome struct {
	Request  int           // its place in the trace
	Intended time.Duration // when it was due, since the start of the trace
	Sent     time.Duration // when it was sent; later than due where the driver could not keep up
	First    time.Duration // when its first token came
	Last     time.Duration // when its last token came, or it failed
	Chunks   int           // of tokens; fewer than tokens where the endpoint sent several at once

	Prompt int // prompt tokens by the endpoint's usage, else by the trace
	Cached int // of them in the prefix cache, by the endpoint's usage; -1 where it did not say
	Output int // tokens by the endpoint's usage, else chunks
	Engine string
	Err    error // nil where the stream came to its end
}

// Result is a finished or cancelled run: the outcomes of all requests that were due, in order of the trace.
type Result struct {
	TimeScale float64
	Start     time.Time // of the trace: what all times count from
	Outcomes  []Outcome
}

// Drive sends the trace and returns when the last answer has ended. If ctx ends, what is in flight is cut off and
// the outcomes so far are returned with ctx's error.
func Drive(ctx context.Context, o Options, t workload.Trace) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if o.Client == nil {
		own := &http.Transport{MaxIdleConnsPerHost: o.Concurrency, DisableCompression: true}
		defer own.CloseIdleConnections()
		o.Client = &http.Client{Transport: own}
	}
	d := &driver{o: o, all: len(t.Requests), start: time.Now().Add(lead), slots: make(chan struct{}, o.Concurrency)}
	err := d.dispatch(ctx, t)
	d.flying.Wait()
	slices.SortFunc(d.outcomes, func(a, b Outcome) int { return cmp.Compare(a.Request, b.Request) })
	return &Result{TimeScale: o.TimeScale, Start: d.start, Outcomes: d.outcomes}, err
}

type driver struct {
	o      Options
	all    int
	start  time.Time
	slots  chan struct{}
	flying sync.WaitGroup

	mu       sync.Mutex
	outcomes []Outcome
}

// now is the trace time.
func (d *driver) now() time.Duration {
	return time.Duration(float64(time.Since(d.start)) * d.o.TimeScale)
}

// ready is a request whose body is made.
type ready struct {
	out  Outcome
	body []byte
}

// lead is the wall time between the call of Drive and the start of the trace: enough to make the first bodies.
const lead = 100 * time.Millisecond

// ahead is how many bodies are made before they are due, so that making them delays no burst: the conversation trace
// has up to 28 requests at one instant.
const ahead = 64

func (d *driver) prepare(ctx context.Context, t workload.Trace, to chan<- ready) {
	defer close(to)
	var tokens []uint32
	for i, r := range t.Requests {
		tokens = d.o.Tokens.Append(tokens[:0], r)
		next := ready{Outcome{Request: i, Intended: r.At, Prompt: r.Input, Cached: -1}, appendBody(nil, d.o.Model, tokens, r.Output)}
		select {
		case to <- next:
		case <-ctx.Done():
			return
		}
	}
}

// dispatch sends each request when it is due.
func (d *driver) dispatch(ctx context.Context, t workload.Trace) error {
	requests := make(chan ready, ahead)
	go d.prepare(ctx, t, requests)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := range requests {
		due := d.start.Add(time.Duration(float64(next.out.Intended) / d.o.TimeScale))
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case d.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		d.flying.Add(1)
		go d.fly(ctx, next.out, next.body)
		if d.o.Sent != nil {
			d.o.Sent(ctx, next.out.Request)
		}
	}
	d.flying.Wait()
	return ctx.Err()
}

func (d *driver) fly(ctx context.Context, out Outcome, body []byte) {
	defer d.flying.Done()
	ctx, cancel := context.WithTimeout(ctx, d.o.Timeout)
	defer cancel()
	out.Sent = d.now()
	out.Err = d.send(ctx, &out, body)
	if out.Err != nil {
		out.Last = d.now()
	}
	<-d.slots
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outcomes = append(d.outcomes, out)
	if d.o.Progress != nil {
		d.o.Progress(len(d.outcomes), d.all, out)
	}
}
