package bodies

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/semaphore"
)

const wait = 5 * time.Second // for others' bodies to go

// ErrFull says that no room came for a body in time.
var ErrFull = errors.New("too many bytes of requests are under way")

// Memory bounds the bytes of all bodies under way. Each is counted by its length as it came; where the body is patched
// there is a second copy of it. Safe for concurrent use.
type Memory struct {
	Wait time.Duration // for others' bodies to go; changed only while nobody takes

	most int64
	free *semaphore.Weighted
}

// NewMemory returns memory for so many bytes.
func NewMemory(most int64) *Memory {
	return &Memory{Wait: wait, most: most, free: semaphore.NewWeighted(most)}
}

// Take makes room for the body of a request before it is read: by the length that is announced, or the most that a body
// may have. It waits for a while, in turn; what it returns must be given back.
func (m *Memory) Take(ctx context.Context, length int64) (taken int64, err error) {
	taken = length
	if taken < 0 || taken > Most {
		taken = Most // a longer one is refused without being read
	}
	if m.free.TryAcquire(taken) {
		return taken, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.Wait)
	defer cancel()
	if taken > m.most || m.free.Acquire(ctx, taken) != nil {
		return 0, ErrFull
	}
	return taken, nil
}

// Keep gives back what a body turned out not to need.
func (m *Memory) Keep(taken, needed int64) int64 {
	if needed >= taken {
		return taken
	}
	m.free.Release(taken - needed)
	return needed
}

// Give gives back what Take or Keep returned.
func (m *Memory) Give(taken int64) { m.free.Release(taken) }
