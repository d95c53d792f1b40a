package router

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/internal/bodies"
	"github.com/warmpath/warmpath/services/router/internal/headers"
)

const (
	maxRetries = 2 // of one request
	rankHeader = "X-Data-Parallel-Rank"
)

// send tries engines until one answers. Nothing has gone to the client yet, so another engine may be asked.
func (x *exchange) send(ctx context.Context) (*http.Response, *openai.Error) {
	for {
		if x.handOver(ctx); ctx.Err() != nil {
			return nil, nil
		}
		resp, err := x.attempt(ctx)
		why := retryReason(resp, err)
		if why == "" || ctx.Err() != nil {
			return resp, nil
		}
		if why != "busy" {
			x.failed(why)
		}
		if !x.again(why) {
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
func (x *exchange) again(why string) bool {
	if x.retries == maxRetries {
		return false
	}
	x.exclude(x.res.Engine.ID)
	old := x.res
	x.keep(why)
	if !x.rt.retries.take() {
		return false
	}
	if x.choose(0) != nil {
		x.rt.retries.give()
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
		if errors.Is(err, context.Canceled) {
			return "stalled"
		}
		return "connection"
	case resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusServiceUnavailable:
		return "unavailable"
	case resp.StatusCode == http.StatusTooManyRequests:
		return "busy"
	}
	return ""
}

// attempt sends the request to the engine that is booked and returns when it has answered with a header, and of a stream
// with its first bytes.
func (x *exchange) attempt(ctx context.Context) (*http.Response, error) {
	body := x.decodeLeg()
	defer body.Release() // the transport has readers of its own
	ctx, answered := x.lasting(ctx)
	defer answered()
	out, err := x.request(x.guard(ctx), &x.res.Engine, body)
	if err != nil {
		return nil, err
	}
	x.q.asked = true
	resp, err := x.rt.engines.Send(x.steer(out), x.tell)
	if err == nil {
		err = x.rt.peek(resp)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// request is the client's request to an engine, with another body.
func (x *exchange) request(ctx context.Context, engine *fleet.Engine, b *bodies.Body) (*http.Request, error) {
	target := strings.TrimSuffix(engine.URL, "/") + x.q.path
	if x.q.query != "" {
		target += "?" + x.q.query
	}
	out, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		return nil, err
	}
	out.Header = headers.Forward(x.q.header)
	out.Header.Set(headers.RequestID, x.q.id)
	x.rt.engines.Authorize(out.Header)
	pin(out.Header, engine)
	out.ContentLength = int64(len(b.Sent))
	out.Body = b.Reader()
	out.GetBody = func() (io.ReadCloser, error) { return b.Reader(), nil }
	return out, nil
}

// pin sends a request to one data-parallel rank of a shared URL.
func pin(h http.Header, e *fleet.Engine) {
	if e.Ranks > 1 {
		h.Set(rankHeader, strconv.Itoa(e.Rank))
	}
}
