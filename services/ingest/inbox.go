package ingest

import (
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/kvwire"
)

// inbox holds the live frames that the session has not come to, above all while it replays. It is bounded: what does
// not fit is lost, which shows as a gap.
type inbox struct {
	ready chan struct{} // holds one token when there may be a frame

	mu     sync.Mutex
	frames []kvwire.Frame
	bytes  int
}

const (
	heldFrames = 1 << 16
	heldBytes  = 64 << 20
)

func newInbox() *inbox { return &inbox{ready: make(chan struct{}, 1)} }

// put adds a frame, or returns false where there is no room.
func (b *inbox) put(f kvwire.Frame) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.frames) >= heldFrames || b.bytes+len(f.Payload) > heldBytes {
		return false
	}
	b.frames, b.bytes = append(b.frames, f), b.bytes+len(f.Payload)
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return true
}

// oldest is when the first of the frames that wait was received; zero where none does.
func (b *inbox) oldest() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.frames) == 0 {
		return time.Time{}
	}
	return b.frames[0].Received
}

// take removes all frames.
func (b *inbox) take() []kvwire.Frame {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.frames
	b.frames, b.bytes = nil, 0
	return all
}
