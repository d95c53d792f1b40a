package sim

import (
	"cmp"
	"strconv"

	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/queue"
)

// Order is in which order requests leave the router's queue.
type Order string

// The orders. Both hold requests in the router while no engine can take one more within the objectives.
const (
	FIFO  Order = "fifo"  // as they came, whoever asks
	Turns Order = "turns" // tenants in turn by tokens, in each turn the order of service: what the router does
)

// gate is until when engines take requests where some wait in the router; the zero Gate where none do.
func (o Options) gate() ledger.Gate {
	if o.Order == "" {
		return ledger.Gate{}
	}
	return ledger.GateFor(o.SLO.TTFT, o.SLO.ITL)
}

// line is the router's queue with virtual time for its clock. A nil line is no queue.
type line struct {
	f       *world
	queue   queue.Queue
	serving bool
}

func newLine(f *world) *line {
	if f.o.Order == "" {
		return nil
	}
	return &line{f: f}
}

const guessedOutput = 256 // tokens, before any request has ended

// enter lets a call wait for its turn.
func (l *line) enter(c *call, p *prompt) {
	pool, now := l.f.router.pool, l.f.router.time(l.f.clock.now)
	c.item = queue.Item{
		Kind: modelName, Tokens: p.length + cmp.Or(pool.Output(), guessedOutput), Arrived: now, Of: func() { l.f.dispatch(c, p) },
	}
	if l.f.o.Order == Turns {
		c.item.Tenant = strconv.Itoa(c.session.tenant)
		c.item.Late = pool.LateAt(now, l.f.o.SLO.TTFT, 0, p.length)
	}
	l.queue.Push(&c.item)
	l.serve()
}

// serve lets in whom there is room for.
func (l *line) serve() {
	if l == nil || l.serving || l.queue.Size().Requests == 0 {
		return
	}
	l.serving = true
	defer func() { l.serving = false }()
	r, now := l.f.router, l.f.router.time(l.f.clock.now)
	room := func(model string) bool { return r.pool.Room(r.view, model, l.f.o.gate(), ledger.Unbooked{}, now) }
	for i := l.queue.Next(now, room); i != nil; i = l.queue.Next(now, room) {
		i.Of.(func())()
	}
}

// left corrects what the tenant of a call was charged, when it has ended.
func (l *line) left(c *call) {
	if l == nil {
		return
	}
	l.queue.Correct(c.item.Tenant, 0, c.prompt-c.hit+c.output-c.item.Tokens)
	l.serve()
}
