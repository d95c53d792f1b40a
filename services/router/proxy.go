package router

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const (
	maxRetries  = 2   // of one request
	retryShare  = 0.1 // of traffic, beyond a few
	retryBurst  = 10
	dialTime    = 2 * time.Second
	idleConns   = 512 // for each engine
	streamRead  = 32 << 10
	socketRead  = 16 << 10
	socketWrite = 64 << 10
)

// newTransport keeps connections to engines. No time limit but for dialling: a prompt may wait long for its turn.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // the usage chunk must be readable
		ReadBufferSize:      socketRead,
		WriteBufferSize:     socketWrite,
	}
}

// retryBudget lets a tenth of the requests be tried again, and a few more. The zero value is full.
type retryBudget struct {
	mu    sync.Mutex
	spent float64
}

func (b *retryBudget) request() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-retryShare)
}

func (b *retryBudget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent+1 > retryBurst {
		return false
	}
	b.spent++
	return true
}

// exchange is one request with an engine chosen: its attempts, its answer and what came of it. It belongs to the
// request's goroutine.
type exchange struct {
	rt   *router
	q    *request
	pool *pool
	wish *ledger.Wish
	res  *ledger.Reservation // the latest
	line line                // of the first choice, but that the engine is the latest

	retries int
	status  int
	outcome string
	first   time.Time // first byte of the answer
	last    time.Time // latest chunk
	stream  openai.Stream
	usage   *openai.Usage
}

// output is how many tokens came out: as the engine counted, else chunks seen.
func (x *exchange) output() int {
	if x.usage != nil {
		return x.usage.Completion
	}
	return x.stream.Chunks
}

// exchange scores, chooses, sends and streams; it ends with the record.
func (rt *router) exchange(w http.ResponseWriter, r *http.Request, q *request) {
	x := &exchange{rt: rt, q: q, pool: rt.pool(q.pool.ID), status: statusClientGone, outcome: outcomeCancelled}
	x.pool.count(func(t *totals) { t.inflight++ })
	defer x.pool.count(func(t *totals) { t.inflight-- })
	rt.retries.request()
	var took time.Duration
	var e *openai.Error
	if x.wish, took, e = rt.score(r.Context(), q); e != nil {
		rt.refuse(w, e)
		return
	}
	if e = x.choose(r.Context(), took); e != nil {
		rt.refuse(w, e)
		return
	}
	defer x.end(r.Context())
	resp, e := x.send(r.Context())
	switch {
	case r.Context().Err() != nil:
		if resp != nil {
			resp.Body.Close()
		}
	case e != nil:
		x.status, x.outcome = e.Status, outcomeNoAnswer
		e.Write(w)
	default:
		x.relay(w, r, resp)
	}
}

// choose picks an engine and books it; at the first choice it also logs the decision.
func (x *exchange) choose(ctx context.Context, scoring time.Duration) *openai.Error {
	began := time.Now()
	res, d := x.pool.Reserve(x.rt.fleet.View(), x.wish, began)
	if res == nil {
		return &openai.Error{
			Status: http.StatusServiceUnavailable, Code: "no_engine", RetryAfter: time.Second,
			Message: "no engine serves the model now",
		}
	}
	picking := time.Since(began)
	x.rt.metrics.took("pick", picking)
	if x.res != nil { // a retry: the first decision stays the request's, its engine is replaced
		x.res, x.line.Chosen = res, d.Engine.Name
		return nil
	}
	x.res, x.line = res, newLine(x.wish, d)
	x.line.ID, x.line.Us = x.q.id, stages{Tokenize: x.wish.Score.GetTokenizeUs(), Score: scoring.Microseconds(), Pick: picking.Microseconds()}
	x.line.log(ctx, x.rt.log)
	x.pool.count(func(t *totals) {
		t.prompt += int64(res.Prompt)
		t.uncached += int64(res.Uncached)
	})
	return nil
}

// send tries engines until one answers. Nothing has gone to the client yet, so another engine may be asked.
func (x *exchange) send(ctx context.Context) (*http.Response, *openai.Error) {
	for {
		resp, err := x.attempt(ctx)
		why := retryReason(resp, err)
		if why == "" || ctx.Err() != nil {
			return resp, nil
		}
		if why != "busy" {
			x.failed(why)
		}
		if !x.again(ctx, why) {
			if resp != nil {
				return resp, nil
			}
			return nil, &openai.Error{
				Status: http.StatusBadGateway, Code: "engine_unreachable", RetryAfter: time.Second,
				Message: "no engine answered the request",
			}
		}
		if resp != nil {
			resp.Body.Close()
		}
	}
}

// failed counts a failure of the engine that is booked.
func (x *exchange) failed(why string) {
	if x.res.Failed(time.Now()) {
		x.rt.metrics.ejections.WithLabelValues(x.pool.id).Inc()
		x.rt.log.Warn("engine ejected", "engine", x.line.Chosen, "reason", why)
	}
}

// again moves the request to another engine, if the budget allows it and there is one.
func (x *exchange) again(ctx context.Context, why string) bool {
	if x.retries == maxRetries {
		return false
	}
	if x.wish.Without == nil {
		x.wish.Without = make(map[string]bool)
	}
	x.wish.Without[x.res.Engine.ID] = true
	old := x.res
	if !x.rt.retries.take() || x.choose(ctx, 0) != nil {
		return false
	}
	old.Release(time.Now(), false, false)
	x.retries++
	x.rt.metrics.retries.WithLabelValues(why).Inc()
	return true
}

// retryReason says in a fixed word why another engine may be asked; empty when the answer stands.
func retryReason(resp *http.Response, err error) string {
	switch {
	case err != nil:
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return "dial"
		}
		return "connection"
	case resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusServiceUnavailable:
		return "unavailable"
	case resp.StatusCode == http.StatusTooManyRequests:
		return "busy"
	}
	return ""
}

// attempt sends the request to the engine that is booked and returns when it has answered with a header.
func (x *exchange) attempt(ctx context.Context) (*http.Response, error) {
	engine := &x.res.Engine
	target := strings.TrimSuffix(engine.URL, "/") + x.q.path
	if x.q.query != "" {
		target += "?" + x.q.query
	}
	out, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		return nil, err
	}
	out.Header = forward(x.q.header)
	out.Header.Set(requestIDHeader, x.q.id)
	if key := x.rt.cfg.EngineKey; key != "" {
		out.Header.Set("Authorization", "Bearer "+key)
	}
	pin(out.Header, engine)
	out.ContentLength = int64(len(x.q.body.sent))
	out.Body = x.q.body.reader()
	out.GetBody = func() (io.ReadCloser, error) { return x.q.body.reader(), nil }
	return x.rt.transport.RoundTrip(out)
}

// pin sends a request to one data-parallel rank of a shared URL.
func pin(h http.Header, e *fleet.Engine) {
	if e.Ranks > 1 {
		h.Set(rankHeader, strconv.Itoa(e.Rank))
	}
}

// end releases the ledger and writes the record; it runs however the request ended.
func (x *exchange) end(ctx context.Context) {
	x.res.Release(time.Now(), !x.first.IsZero(), x.outcome == outcomeOK || x.outcome == outcomeRefused && x.status < 500)
	output := x.output()
	x.pool.count(func(t *totals) { t.output += int64(output) })
	if x.outcome == outcomeOK && output > 0 {
		x.pool.Finished(output)
	}
	x.rt.metrics.request(x.status, x.outcome)
	if x.q.stream && !x.first.IsZero() {
		x.rt.metrics.ttft.WithLabelValues(x.pool.id).Observe(x.first.Sub(x.q.arrived).Seconds())
	}
	x.rt.publish(context.WithoutCancel(ctx), x.record(x.rt.instance, time.Now()))
}
