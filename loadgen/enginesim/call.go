package enginesim

import (
	"sync"
	"time"
)

// emitted is one token on its way to a client.
type emitted struct {
	choice int
	token  uint32
	index  int // of the token in its answer
	hit    int // prompt tokens found in the cache
	last   bool
}

// call hands the tokens of one HTTP request from the engine's loop to its handler. The loop never waits for it.
type call struct {
	ready chan struct{} // holds one value once there is something to take
	fetch *fetch        // of a prompt that another engine computed; nil for others

	mu  sync.Mutex
	out []emitted
	err error
}

// choice is one sequence of a call; the Tag of its Request.
type choice struct {
	call    *call
	index   int
	arrived time.Time
	stops   bool      // the answer ends by itself, not at a limit
	last    time.Time // of the last token; owned by the engine's loop
	handed  *handed   // of a prompt that is computed for another engine; nil for others
}

func newCall() *call { return &call{ready: make(chan struct{}, 1)} }

// push adds a token.
func (c *call) push(t emitted) {
	c.mu.Lock()
	c.out = append(c.out, t)
	c.mu.Unlock()
	c.signal()
}

// take moves what came to dst, and returns why nothing more will, if so.
func (c *call) take(dst []emitted) ([]emitted, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dst = append(dst, c.out...)
	c.out = c.out[:0]
	return dst, c.err
}

func (c *call) signal() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// fail ends the call that a request belongs to, if it has one.
func fail(r *Request, err error) {
	c, ok := r.Tag.(*choice)
	if !ok {
		return
	}
	c.call.mu.Lock()
	c.call.err = err
	c.call.mu.Unlock()
	c.call.signal()
}
