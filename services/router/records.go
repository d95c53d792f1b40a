package router

import (
	"context"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

const (
	gatherRecords = 5 * time.Millisecond // those within are sent together
	mostRecords   = 4096                 // that wait
)

// records wait to be sent, so that no request waits for its record, and NATS is woken once for many. publish must be
// set. Safe for concurrent use.
type records struct {
	publish func(r *record, ok bool) // not ok is one too many

	sending sync.Mutex // held while records are sent, so that a flush has sent what was put before
	mu      sync.Mutex
	waiting []scored
	armed   bool
}

// scored is a record with what the scorer said, which is added to it when it is sent.
type scored struct {
	*record
	score *scorerv1.ScoreResponse
}

// put takes a record, and returns at once.
func (q *records) put(r *record, score *scorerv1.ScoreResponse) {
	q.mu.Lock()
	full := len(q.waiting) >= mostRecords
	if !full {
		q.waiting = append(q.waiting, scored{r, score})
	}
	arm := !q.armed
	q.armed = true
	q.mu.Unlock()
	if full {
		q.publish(r, false)
	}
	if arm {
		time.AfterFunc(gatherRecords, q.flush)
	}
}

// flush sends what waits.
func (q *records) flush() {
	q.sending.Lock()
	defer q.sending.Unlock()
	q.mu.Lock()
	waiting := q.waiting
	q.waiting, q.armed = nil, false
	q.mu.Unlock()
	for _, r := range waiting {
		r.matches(r.score)
		q.publish(r.record, true)
	}
}

// publish hands a record to the stream. What cannot be sent now is dropped and counted.
func (rt *router) publish(r *record, ok bool) {
	if !ok || rt.bus.Append(context.Background(), bus.RequestSubject(r.Pool), r.appendJSON(nil)) != nil {
		rt.metrics.dropped.WithLabelValues("record").Inc()
	}
}
