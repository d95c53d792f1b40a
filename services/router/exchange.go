package router

import (
	"context"
	"net/http"
	"time"

	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/ledger"
)

// exchange is one request with an engine chosen: its attempts, its answer and what came of it. It belongs to the
// request's goroutine.
type exchange struct {
	rt    *router
	q     *request
	pool  *pool
	wish  *ledger.Wish
	res   *ledger.Reservation // the latest
	line  line                // of the first choice, but that the engine is the latest
	said  line                // the decision line, of the first choice
	told  bool                // it is written
	apart split               // where its prompt is computed

	predicted time.Duration // arrival to first byte, as foreseen at the first choice

	cancel  context.CancelFunc // ends the attempt under way; nil before the first
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
	x.wish.Gate, x.wish.Split = ledger.GateFor(rt.cfg.SLO.TTFT, q.slo.ITL), x.splitter()
	for e = x.choose(took); e != nil; e = x.choose(took) {
		if e = x.back(r.Context()); e != nil {
			rt.refuse(w, e)
			return
		}
		if r.Context().Err() != nil {
			return
		}
	}
	x.booked(time.Now())
	defer x.end(r.Context())
	resp, e := x.send(r.Context())
	x.tell() // before the answer begins: who has it finds the line
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

// back has the request wait at the door again: the last engine that took requests has left since it was let in.
func (x *exchange) back(ctx context.Context) *openai.Error {
	v := &x.q.visit
	v.Booked(v.Guess.Uncached)
	return x.rt.notLetIn(x.pool.door.Enter(ctx, v))
}

// choose picks an engine and books it; at the first choice it also logs the decision.
func (x *exchange) choose(scoring time.Duration) *openai.Error {
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
		x.line.Split = x.apart.decided(d)
		return nil
	}
	x.res, x.line = res, newLine(x.wish, d)
	x.line.Split = x.apart.decided(d)
	x.line.ID, x.line.Priority = x.q.id, x.q.caller.band
	x.line.Us = stages{Tokenize: x.wish.Score.GetTokenizeUs(), Score: scoring.Microseconds(), Pick: picking.Microseconds()}
	x.decide()
	x.pool.count(func(t *totals) {
		t.prompt += int64(res.Prompt)
		t.uncached += int64(x.computing().Uncached)
	})
	return nil
}

// decide keeps the decision line as it is now.
func (x *exchange) decide() {
	x.said = x.line
	if x.said.Split != nil { // it goes on to change
		split := *x.said.Split
		x.said.Split = &split
	}
}

// tell writes the decision line, once: while the engine is at work, where it can.
func (x *exchange) tell() {
	if !x.told {
		x.told = true
		x.said.log(x.rt.log)
	}
}

// end releases the ledger and writes the record; it runs however the request ended.
func (x *exchange) end(ctx context.Context) {
	x.unguard()
	x.res.Release(time.Now(), !x.first.IsZero(), x.outcome == outcomeOK || x.outcome == outcomeRefused && x.status < 500)
	x.settle(ctx)
	output := x.output()
	x.pool.count(func(t *totals) { t.output += int64(output) })
	x.account(output)
	if x.outcome == outcomeOK && output > 0 {
		x.pool.Finished(output)
	}
	x.rt.metrics.request(x.status, x.outcome)
	if x.q.stream && !x.first.IsZero() {
		x.rt.metrics.ttft.WithLabelValues(x.pool.id).Observe(x.first.Sub(x.q.arrived).Seconds())
	}
	x.rt.records.put(x.record(x.rt.instance, time.Now()), x.wish.Score)
}
