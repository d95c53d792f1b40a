package bus

import (
	"context"
	"sync"
)

// link tells when connections begin and end. A session is one connection's life as a context.
type link struct {
	mu      sync.Mutex
	current context.Context
	cancel  context.CancelFunc
	changed chan struct{} // closed when the next session begins
}

func (l *link) init() {
	l.current, l.cancel = context.WithCancel(context.Background())
	l.cancel()
	l.changed = make(chan struct{})
}

func (l *link) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	l.current, l.cancel = context.WithCancel(context.Background())
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
}

// session returns the present session; it has ended while NATS is away.
func (l *link) session() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// wait returns a session that has not ended, as soon as there is one, or ctx's error.
func (l *link) wait(ctx context.Context) (context.Context, error) {
	for {
		l.mu.Lock()
		session, changed := l.current, l.changed
		l.mu.Unlock()
		if session.Err() == nil {
			return session, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
