package router

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/internal/bodies"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const (
	transferParams  = "kv_transfer_params"
	prefillerHeader = "X-Prefiller-Host-Port"

	// askTransfer asks vLLM's NIXL connector to keep a prompt's blocks until a decode engine has read them.
	askTransfer = `{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,` +
		`"remote_host":null,"remote_port":null}`

	// finishTime bounds how long a prefill engine goes on after the client left; stepTokens is what it computes in a step.
	finishTime = 5 * time.Second
	stepTokens = 8192
	// readTime is how long a decode engine has to look at its request after the client left.
	readTime = time.Second
)

// Why a prefill engine did not hand a prompt over, beside retryReason's words.
const (
	prefillRefused = "refused" // a status of 4xx: the decode engine shall say why
	prefillNothing = "nothing" // an answer without kv_transfer_params
	prefillGarbage = "garbage" // no JSON object
	prefillLarge   = "large"   // more than maxRead bytes
	prefillLeft    = "left"    // the client left, and it was told to stop
)

// handOver has the prompt computed by the prefill engine that is booked, or by one other, and keeps what it hands over
// for the decode engine. Where none does, the decode engine computes it. Nothing has gone to the client yet.
func (x *exchange) handOver(ctx context.Context) {
	s := &x.apart
	if s.params != nil { // of an attempt that did not reach its decode engine
		if x.res.Engine.ID == s.by.ID { // nobody reads from itself: it has the prompt in its cache
			s.params, s.usage = nil, nil
			s.line.Outcome, s.line.Reason = splitFallback, wholeNobody
			x.rt.metrics.stranded.Inc()
			return
		}
		s.line.Outcome = splitRemote
		x.res.PrefillDone(time.Now())
		return
	}
	if x.res.Prefill == nil || x.sidecar() {
		return
	}
	s.line.Outcome = splitRemote
	why := x.prefill(ctx)
	if why == "" || x.left(ctx) {
		return
	}
	if x.prefillElsewhere(why) {
		s.line.Outcome = splitRetried
		if why = x.prefill(ctx); why == "" || x.left(ctx) {
			return
		}
		x.prefillFailed(why)
	}
	s.line.Outcome, s.line.Reason = splitFallback, wholeFallback
}

// left notes a client that left while its prompt was computed.
func (x *exchange) left(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	x.apart.line.Outcome = splitCancelled
	x.rt.metrics.prefillFailures.WithLabelValues(prefillLeft).Inc()
	return true
}

// sidecar says that who stands before the decode engine has the prompt computed.
func (x *exchange) sidecar() bool { return x.res.Engine.Sidecar == fleet.LLMD && x.res.Prefill != nil }

// prefill sends the first leg and reads what it hands over. It returns in a fixed word why there is nothing.
func (x *exchange) prefill(ctx context.Context) (why string) {
	s, began := &x.apart, time.Now()
	place := x.res.Prefill
	leg := x.q.prefillLeg([]byte(askTransfer))
	defer leg.Release()
	reading, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { stopPrefill(place, cancel) })()
	place.OnStall(cancel)
	out, err := x.request(reading, &place.Engine, leg)
	if err != nil {
		return prefillRefused
	}
	x.q.asked = true
	resp, err := x.rt.engines.Send(out, x.tell)
	if err != nil {
		return retryReason(nil, err)
	}
	defer resp.Body.Close()
	params, usage, why := readPrefill(resp)
	if why != "" {
		return why
	}
	s.params, s.usage, s.by, s.computed = params, usage, place.Engine, time.Now()
	s.sent.Store(false)
	s.line.Seconds, s.line.CachedPredicted = s.computed.Sub(began).Seconds(), place.Cached
	if usage.HasCached {
		s.line.CachedMeasured = &usage.Cached
	}
	x.rt.metrics.prefill.WithLabelValues(x.pool.id).Observe(s.line.Seconds)
	x.res.PrefillDone(s.computed)
	return ""
}

// stopPrefill ends the leg of a client that has left, if it is to end much later, so that the engine has steps to go.
// In its last step the engine would finish all the same, and keep blocks in use which only its answer names: then that is
// waited for, and the blocks are freed.
func stopPrefill(place *ledger.Reservation, cancel func()) {
	if place.LongToGo(2*stepTokens, time.Now()) {
		cancel()
		return
	}
	time.AfterFunc(finishTime, cancel)
}

// readPrefill reads a prefill engine's answer: its kv_transfer_params byte for byte, and its usage.
func readPrefill(resp *http.Response) (params []byte, usage *openai.Usage, why string) {
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		return nil, nil, retryReason(resp, nil)
	case resp.StatusCode >= http.StatusInternalServerError:
		return nil, nil, "unavailable"
	case resp.StatusCode != http.StatusOK:
		return nil, nil, prefillRefused
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxRead+1))
	switch {
	case err != nil:
		return nil, nil, "connection"
	case len(answer) > maxRead:
		return nil, nil, prefillLarge
	}
	var b openai.Body
	if b.Scan(answer) != nil {
		return nil, nil, prefillGarbage
	}
	params = b.Value(transferParams)
	if params == nil || params[0] != '{' || openai.IsEmpty(params) {
		return nil, nil, prefillNothing
	}
	usage, ok := openai.ReadUsage(&b)
	if !ok {
		usage = &openai.Usage{}
	}
	return bytes.Clone(params), usage, ""
}

// prefillFailed leaves the prompt to the decode engine.
func (x *exchange) prefillFailed(why string) {
	x.rt.metrics.prefillFailures.WithLabelValues(why).Inc()
	engine := &x.res.Prefill.Engine
	if why == "busy" || why == prefillRefused {
		x.res.PrefillRefused(time.Now())
	} else if x.res.PrefillFailed(time.Now()) {
		x.rt.metrics.ejections.WithLabelValues(x.pool.id).Inc()
		x.rt.log.Warn("engine ejected", "engine", engine.Name, "reason", "prefill: "+why)
	}
	x.exclude(engine.ID)
}

// prefillElsewhere books another prefill engine after one failed, if the budget allows it and the policy still would.
func (x *exchange) prefillElsewhere(why string) bool {
	x.prefillFailed(why)
	if why == prefillRefused || !x.rt.retries.take() {
		return false
	}
	d := x.res.PrefillAgain(x.rt.fleet.View(), x.wish, time.Now())
	if d == nil {
		x.rt.retries.give()
		return false
	}
	x.apart.line.chosen(d.Prefill)
	return true
}

// exclude keeps the request from an engine that has failed it.
func (x *exchange) exclude(id string) {
	if x.wish.Without == nil {
		x.wish.Without = make(map[string]bool)
	}
	x.wish.Without[id] = true
}

// keep decides what becomes of a computed prompt when its decode engine failed. What may have been read must not be
// read again, since its blocks may by then hold another prompt; else the next decode engine reads it.
func (x *exchange) keep(why string) {
	s := &x.apart
	if s.params != nil && (!s.sent.Load() || why == "busy") {
		s.named = s.by.ID
		s.sent.Store(false)
		return
	}
	s.params, s.usage, s.reason = nil, nil, wholeNobody
}

// steer tells the decode leg whom its sidecar shall ask, or notes that it has left.
func (x *exchange) steer(out *http.Request) *http.Request {
	if x.sidecar() {
		out.Header.Set(prefillerHeader, hostPort(x.res.Prefill.Engine.URL))
		x.apart.line.Outcome = splitSidecar
		return out
	}
	if x.apart.params == nil {
		return out
	}
	trace := httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.apart.sent.Store(true) }}
	return out.WithContext(httptrace.WithClientTrace(out.Context(), &trace))
}

// lasting is the context of a leg to an engine that is to read blocks which are kept for it. An engine that is hung up on
// before it has looked at its request leaves them in use: until it answers, a client that leaves is told of only after
// readTime.
func (x *exchange) lasting(ctx context.Context) (lasting context.Context, answered func()) {
	if x.apart.params == nil {
		return ctx, func() {}
	}
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	late := context.AfterFunc(ctx, func() { time.AfterFunc(readTime, cancel) })
	return lasting, func() {
		late()
		context.AfterFunc(ctx, cancel)
	}
}

// computing is the place of the prompt: where it is computed.
func (x *exchange) computing() *ledger.Reservation {
	if x.res.Prefill != nil {
		return x.res.Prefill
	}
	return x.res
}

// prefillLeg is the request with one token to generate, whole, and these transfer parameters; it must be released.
func (q *request) prefillLeg(params []byte) *bodies.Body {
	p := openai.NewPatch(&q.scan)
	p.Set("stream", []byte("false"))
	p.Set("max_tokens", []byte("1"))
	if _, ok := q.scan.Find("max_completion_tokens"); ok {
		p.Set("max_completion_tokens", []byte("1"))
	}
	p.Delete("min_tokens")
	p.Delete("stream_options")
	p.Set(transferParams, params)
	return q.body.With(p)
}

// decodeLeg is the body for the decode engine: the client's, and what the prefill engine handed over. It must be released.
func (x *exchange) decodeLeg() *bodies.Body {
	if x.apart.params == nil {
		return x.q.body.Keep()
	}
	p := openai.NewPatch(&x.q.scan)
	if x.q.options != nil {
		p.Set("stream_options", x.q.options)
	}
	p.Set(transferParams, x.apart.params)
	return x.q.body.With(p)
}
