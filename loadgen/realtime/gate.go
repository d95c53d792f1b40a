package realtime

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Gate lets one request at a time go from the client to an engine's queue, so that a router which takes engines in turn
// takes them in the order of the trace, and notes when each request came there. Its methods are safe for concurrent
// use; none but Wait blocks.
type Gate struct {
	mu    sync.Mutex
	calls []passage
}

// passage is one request on its way to an engine.
type passage struct {
	reached time.Time
	over    chan struct{} // closed when it is there, or will never be
	closed  bool
}

// NewGate returns a gate for requests 0 to n-1.
func NewGate(n int) *Gate {
	g := &Gate{calls: make([]passage, n)}
	for i := range g.calls {
		g.calls[i].over = make(chan struct{})
	}
	return g
}

const idPrefix = "realtime-"

// ID is the X-Request-Id of a request.
func (g *Gate) ID(request int) string { return fmt.Sprint(idPrefix, request) }

// Submitted notes that the request of this id has come to an engine's queue. Foreign ids are ignored; of several
// attempts at one request the first one counts.
func (g *Gate) Submitted(id string) {
	now := time.Now()
	rest, ours := strings.CutPrefix(id, idPrefix)
	n, err := strconv.Atoi(rest)
	if !ours || err != nil || n < 0 || n >= len(g.calls) {
		return
	}
	g.pass(n, now)
}

// Ended lets others pass after a request that may have come to no engine.
func (g *Gate) Ended(request int) { g.pass(request, time.Time{}) }

func (g *Gate) pass(n int, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &g.calls[n]
	if !c.closed {
		c.reached, c.closed = at, true
		close(c.over)
	}
}

// Wait returns when a request has come to an engine, has ended, or ctx has.
func (g *Gate) Wait(ctx context.Context, request int) {
	select {
	case <-g.calls[request].over:
	case <-ctx.Done():
	}
}

// Reached is when a request came to an engine's queue; zero where it did not.
func (g *Gate) Reached(request int) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[request].reached
}
