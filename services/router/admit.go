package router

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/queue"
)

const (
	defaultQueueTTL = time.Minute
	generousWait    = 30 * time.Second // without an SLO, engines queue for themselves up to here
	lookEvery       = 20 * time.Millisecond
	queueRequests   = 5000
	tenantRequests  = 2500
	guessedOutput   = 256 // tokens, before any request has ended
	bytesPerToken   = 4
	retryFull       = 5 * time.Second
)

// Codes of refusals, and what the reason header says of each.
const (
	codeNoEngine   = "no_engine"
	codeQueueFull  = "queue_full"
	codeQueueTTL   = "queue_timeout"
	codeOverBudget = "rate_limit_exceeded"
	codeNoMemory   = "out_of_memory"

	reasonHeader = "X-Llm-D-Request-Dropped-Reason"
)

// droppedBecause is the reason header of a refusal, in llm-d's words where it has one; empty for other errors.
func droppedBecause(code string) string {
	switch code {
	case codeNoEngine:
		return "rejected-no-endpoints"
	case codeQueueFull:
		return "rejected-saturated"
	case codeQueueTTL:
		return "rejected-ttl-expired"
	case codeOverBudget:
		return "rejected-over-budget"
	case codeNoMemory:
		return "rejected-body-bytes"
	}
	return ""
}

// SLO is what requests of a pool should keep. Zeros are no objectives.
type SLO struct {
	TTFT time.Duration
	ITL  time.Duration
}

// door lets the requests of a pool in while it has room, and others wait in its queue. Its methods may be called from
// any goroutine. While something waits a timer looks at it now and then, for what changes without a call of wake: an
// engine that joins, time that passes.
type door struct {
	rt   *router
	pool *pool
	gate ledger.Gate

	waiting atomic.Int64 // requests in the queue

	mu       sync.Mutex
	queue    queue.Queue
	unbooked ledger.Unbooked
	timer    *time.Timer
}

// guess is what a request is thought to cost before it is scored.
type guess struct {
	prompt   int
	uncached int
	output   int
}

// place is a request's way through the door. It belongs to the request's goroutine.
type place struct {
	door   *door
	guess  guess
	inside bool // let in and not booked yet
	paid   bool // its tenant has paid the guess
	waited time.Duration
}

// enter waits until the pool has room for a request, and no longer than the client does.
func (d *door) enter(ctx context.Context, q *request) *openai.Error {
	now := time.Now()
	q.place.door = d
	d.mu.Lock()
	if d.queue.Size().Requests == 0 && d.room(q.model, now) {
		d.letIn(&q.place)
		d.mu.Unlock()
		return nil
	}
	verdict := make(chan *openai.Error, 1)
	i := &queue.Item{
		Tenant: q.caller.flow, Band: q.caller.band, Kind: q.model, Tokens: q.place.guess.uncached + q.place.guess.output,
		Bytes: int64(len(q.body.Raw)), Arrived: now, Late: d.late(q), Of: &waiter{&q.place, verdict},
	}
	for _, out := range d.queue.Push(i) {
		tell(out, &openai.Error{
			Status: http.StatusTooManyRequests, Code: codeQueueFull, RetryAfter: retryFull,
			Message: "too many requests wait for the model",
		})
	}
	d.serve(now)
	d.mu.Unlock()
	d.pool.count(func(t *totals) { t.queued++ })
	defer d.pool.count(func(t *totals) { t.queued-- })
	select {
	case e := <-verdict:
		if q.place.waited = time.Since(now); e != nil {
			d.pool.count(func(t *totals) { t.shed++ })
		}
		return e
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.queue.Remove(i) && <-verdict == nil { // let in at the same moment
		d.booked(&q.place)
	}
	d.waiting.Store(int64(d.queue.Size().Requests))
	return nil // nobody is left to answer
}

// waiter is whose an item of the queue is.
type waiter struct {
	place   *place
	verdict chan *openai.Error // one is sent
}

func tell(i *queue.Item, e *openai.Error) { i.Of.(*waiter).verdict <- e }

// late is when the request cannot meet its TTFT any more; zero without an objective.
func (d *door) late(q *request) time.Time {
	if q.slo.TTFT == 0 {
		return time.Time{}
	}
	g := &q.place.guess
	return d.pool.LateAt(q.arrived, q.slo.TTFT, g.prompt-g.uncached, g.prompt)
}

// room says whether the pool has room for a request for a model. The lock is held.
func (d *door) room(model string, now time.Time) bool {
	gate := d.gate
	gate.Wait = cmp.Or(gate.Wait, generousWait)
	return d.pool.Room(d.rt.fleet.View(), model, gate, d.unbooked, now)
}

func (d *door) letIn(p *place) {
	p.inside = true
	d.unbooked.Requests++
	d.unbooked.Tokens += p.guess.uncached
}

// serve lets in whom there is room for, and sees to it that those left are looked at again. The lock is held.
func (d *door) serve(now time.Time) {
	for {
		i := d.queue.Next(now, func(model string) bool { return d.room(model, now) })
		if i == nil {
			break
		}
		p := i.Of.(*waiter).place
		p.paid = true
		d.letIn(p)
		tell(i, nil)
	}
	left := d.queue.Size().Requests
	if d.waiting.Store(int64(left)); left > 0 && d.timer == nil {
		d.timer = time.AfterFunc(lookEvery, d.look)
	}
}

// wake is called when an engine may have room: it has begun or ended an answer.
func (d *door) wake() {
	if d.waiting.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serve(time.Now())
}

// look ends the waits that are over.
func (d *door) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = nil
	now, lives := time.Now(), make(map[string]time.Duration)
	life := func(model string) time.Duration {
		if _, known := lives[model]; !known {
			lives[model] = d.rt.cfg.Hold
			if d.pool.Ready(d.rt.fleet.View(), model) {
				lives[model] = d.rt.cfg.QueueTTL
			}
		}
		return lives[model]
	}
	for _, i := range d.queue.Expire(now, life) {
		if d.pool.Ready(d.rt.fleet.View(), i.Kind) {
			tell(i, &openai.Error{
				Status: http.StatusTooManyRequests, Code: codeQueueTTL, RetryAfter: retryFull,
				Message: "the engines of the model are busy, and the request waited too long",
			})
			continue
		}
		tell(i, &openai.Error{
			Status: http.StatusServiceUnavailable, Code: codeNoEngine, RetryAfter: d.rt.cfg.Hold,
			Message: "no engine serves the model now; it may be starting",
		})
	}
	d.serve(now)
}

// booked says that the request is in the ledger, or will never be. The lock is held.
func (d *door) booked(p *place) {
	if p.inside {
		p.inside = false
		d.unbooked.Requests--
		d.unbooked.Tokens -= p.guess.uncached
	}
}

// booked says that the request has an engine, where so many tokens are to be computed: its tenant pays what was not
// foreseen.
func (q *request) booked(uncached int) {
	d := q.place.door
	d.mu.Lock()
	defer d.mu.Unlock()
	d.booked(&q.place)
	if q.place.paid {
		d.queue.Correct(q.caller.flow, q.caller.band, uncached-q.place.guess.uncached)
		q.place.guess.uncached = uncached
	}
}

// left says that the request has come to its end. What waits may come in.
func (q *request) left() {
	d := q.place.door
	if d == nil {
		return
	}
	d.mu.Lock()
	cost := q.output - q.place.guess.output
	if q.place.inside { // nothing was computed
		cost -= q.place.guess.uncached
		d.booked(&q.place)
	}
	if q.place.paid {
		d.queue.Correct(q.caller.flow, q.caller.band, cost)
	}
	d.mu.Unlock()
	d.wake()
}

// tokens are what waits.
func (d *door) tokens() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(d.queue.Size().Tokens)
}

// cost guesses what a request costs: a token for four bytes, of which as many are cached as usual, and as many come out
// as usual unless the client wants fewer.
func (p *pool) cost(q *request) (g guess) {
	text := q.text()
	if text == nil {
		text = q.body.Raw
	}
	g.prompt = len(text) / bytesPerToken
	p.mu.Lock()
	g.uncached = int(float64(g.prompt) * float64(p.total.uncached+1) / float64(p.total.prompt+1))
	p.mu.Unlock()
	g.output = cmp.Or(p.Output(), guessedOutput)
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if n, err := openai.ReadInt(q.scan.Value(name)); err == nil && q.scan.Value(name) != nil {
			g.output = min(g.output, int(n))
		}
	}
	return g
}
