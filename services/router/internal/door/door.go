// Package door lets the requests of a pool in while its engines have room, and has the others wait in a queue.
package door

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/queue"
)

const (
	generousWait = 30 * time.Second // without an SLO, engines queue for themselves up to here
	lookEvery    = 20 * time.Millisecond
)

// Why a request was not let in, in words for its client.
var (
	ErrFull     = errors.New("too many requests wait for the model")
	ErrTooLong  = errors.New("the engines of the model are busy, and the request waited too long")
	ErrNoEngine = errors.New("no engine serves the model now; it may be starting")
)

// engines is a ledger.Pool.
type engines interface {
	Room(v *fleet.View, model string, g ledger.Gate, u ledger.Unbooked, now time.Time) bool
	Ready(v *fleet.View, model string) bool
	LateAt(arrived time.Time, ttft time.Duration, cached, prompt int) time.Time
}

// counter is told what becomes of requests that have to wait.
type counter interface {
	Waits(v *Visit)             // one more
	Waited(v *Visit, shed bool) // one less, of equal Guess
}

// Door lets the requests of a pool in while it has room, and others wait in its queue. All exported fields but
// Every must be set before its first use. Its methods may be called from any goroutine. While something waits a timer looks at it now and
// then, for what changes without a call of Wake: an engine that joins, time that passes.
type Door struct {
	Engines  engines
	View     func() *fleet.View
	Gate     ledger.Gate
	Limits   queue.Limits
	QueueTTL time.Duration // how long a request waits for room
	Hold     time.Duration // how long it waits while no engine serves its model
	Every    time.Duration // between two looks at what waits; 0 is 20 ms
	Counter  counter

	waiting atomic.Int64 // requests in the queue

	mu       sync.Mutex
	queue    queue.Queue
	unbooked ledger.Unbooked
	timer    *time.Timer
}

// Guess is what a request is thought to cost before it is scored, in tokens.
type Guess struct {
	Prompt   int
	Uncached int // of these, to be computed
	Output   int
}

// Visit is one request's way through a door. It belongs to the request's goroutine.
type Visit struct {
	Tenant  string // whose turn it takes
	Band    int
	Model   string
	Bytes   int // of its body
	Arrived time.Time
	TTFT    time.Duration // that it should keep; 0 is none
	Guess   Guess

	Waited time.Duration // counted by Enter

	door   *Door
	inside bool // let in and not booked yet
	paid   bool // its tenant has paid the guess
}

// Enter waits until the pool has room for a request, and no longer than ctx lasts. Whoever has entered, also in vain,
// must leave.
func (d *Door) Enter(ctx context.Context, v *Visit) error {
	now := time.Now()
	v.door = d
	d.mu.Lock()
	if d.queue.Size().Requests == 0 && d.room(v.Model, now) {
		d.letIn(v)
		d.mu.Unlock()
		return nil
	}
	verdict := make(chan error, 1)
	i := &queue.Item{
		Tenant: v.Tenant, Band: v.Band, Kind: v.Model, Tokens: v.Guess.Uncached + v.Guess.Output,
		Bytes: int64(v.Bytes), Arrived: now, Late: d.late(v), Of: &waiter{v, verdict},
	}
	d.queue.Limits = d.Limits
	for _, out := range d.queue.Push(i) {
		tell(out, ErrFull)
	}
	d.waiting.Store(int64(d.queue.Size().Requests)) // before room is looked for: from now on who makes some wakes us
	d.serve(now)
	d.mu.Unlock()
	d.Counter.Waits(v)
	shed := false
	defer func() { d.Counter.Waited(v, shed) }()
	select {
	case err := <-verdict:
		v.Waited, shed = v.Waited+time.Since(now), err != nil
		return err
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.queue.Remove(i) && <-verdict == nil { // let in at the same moment
		d.booked(v)
	}
	d.waiting.Store(int64(d.queue.Size().Requests))
	return nil // nobody is left to answer
}

// waiter is whose an item of the queue is.
type waiter struct {
	visit   *Visit
	verdict chan error // one is sent
}

func tell(i *queue.Item, err error) { i.Of.(*waiter).verdict <- err }

// late is when the request cannot meet its TTFT any more; zero without an objective.
func (d *Door) late(v *Visit) time.Time {
	if v.TTFT == 0 {
		return time.Time{}
	}
	return d.Engines.LateAt(v.Arrived, v.TTFT, v.Guess.Prompt-v.Guess.Uncached, v.Guess.Prompt)
}

// room says whether the pool has room for a request for a model. The lock is held.
func (d *Door) room(model string, now time.Time) bool {
	gate := d.Gate
	gate.Wait = cmp.Or(gate.Wait, generousWait)
	return d.Engines.Room(d.View(), model, gate, d.unbooked, now)
}

func (d *Door) letIn(v *Visit) {
	v.inside = true
	d.unbooked.Requests++
	d.unbooked.Tokens += v.Guess.Uncached
}

// serve lets in whom there is room for, and sees to it that those left are looked at again. The lock is held.
func (d *Door) serve(now time.Time) {
	for {
		i := d.queue.Next(now, func(model string) bool { return d.room(model, now) })
		if i == nil {
			break
		}
		v := i.Of.(*waiter).visit
		v.paid = true
		d.letIn(v)
		tell(i, nil)
	}
	left := d.queue.Size().Requests
	if d.waiting.Store(int64(left)); left > 0 && d.timer == nil {
		d.timer = time.AfterFunc(cmp.Or(d.Every, lookEvery), d.look)
	}
}

// Wake is called when an engine may have room: it has begun or ended an answer.
func (d *Door) Wake() {
	if d.waiting.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serve(time.Now())
}

// look ends the waits that are over.
func (d *Door) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = nil
	now, lives := time.Now(), make(map[string]time.Duration)
	life := func(model string) time.Duration {
		if _, known := lives[model]; !known {
			lives[model] = d.Hold
			if d.Engines.Ready(d.View(), model) {
				lives[model] = d.QueueTTL
			}
		}
		return lives[model]
	}
	for _, i := range d.queue.Expire(now, life) {
		if d.Engines.Ready(d.View(), i.Kind) {
			tell(i, ErrTooLong)
			continue
		}
		tell(i, ErrNoEngine)
	}
	d.serve(now)
}

// booked says that the request is in the ledger, or will never be. The lock is held.
func (d *Door) booked(v *Visit) {
	if v.inside {
		v.inside = false
		d.unbooked.Requests--
		d.unbooked.Tokens -= v.Guess.Uncached
	}
}

// Booked says that the request has an engine, where so many tokens are to be computed: its tenant pays what was not
// foreseen.
func (v *Visit) Booked(uncached int) {
	d := v.door
	d.mu.Lock()
	defer d.mu.Unlock()
	d.booked(v)
	if v.paid {
		d.queue.Correct(v.Tenant, v.Band, uncached-v.Guess.Uncached)
		v.Guess.Uncached = uncached
	}
	if d.waiting.Load() > 0 { // until now the request counted twice: at the door and on its engine
		d.serve(time.Now())
	}
}

// Leave says that the request has come to its end, with so many tokens of output. What waits may come in. Who has not
// come to a door leaves none.
func (v *Visit) Leave(output int) {
	d := v.door
	if d == nil {
		return
	}
	d.mu.Lock()
	cost := output - v.Guess.Output
	if v.inside { // nothing was computed
		cost -= v.Guess.Uncached
		d.booked(v)
	}
	if v.paid {
		d.queue.Correct(v.Tenant, v.Band, cost)
	}
	d.mu.Unlock()
	d.Wake()
}

// Waiting is what waits.
func (d *Door) Waiting() queue.Size {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queue.Size()
}
