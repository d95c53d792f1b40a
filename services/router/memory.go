package router

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/warmpath/warmpath/libs/openai"
)

const (
	defaultBodyBytes = 1 << 30
	memoryWait       = 5 * time.Second // for others' bodies to go
)

// memory bounds the bytes of all bodies under way. Each is counted by its length as it came; where the body is patched
// there is a second copy of it.
type memory struct {
	most int64
	free *semaphore.Weighted
	wait time.Duration
}

func newMemory(most int64) *memory {
	return &memory{most: most, free: semaphore.NewWeighted(most), wait: memoryWait}
}

// take makes room for the body of a request before it is read: by the length that is announced, or the most that a body
// may have. It waits for a while, in turn; what it returns must be given back.
func (m *memory) take(ctx context.Context, length int64) (taken int64, e *openai.Error) {
	taken = length
	if taken < 0 || taken > maxBody {
		taken = maxBody // a longer one is refused without being read
	}
	if m.free.TryAcquire(taken) {
		return taken, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.wait)
	defer cancel()
	if taken > m.most || m.free.Acquire(ctx, taken) != nil {
		return 0, &openai.Error{
			Status: http.StatusServiceUnavailable, Code: codeNoMemory, RetryAfter: retryFull,
			Message: "too many bytes of requests are under way",
		}
	}
	return taken, nil
}

// keep gives back what a body turned out not to need.
func (m *memory) keep(taken, needed int64) int64 {
	if needed >= taken {
		return taken
	}
	m.free.Release(taken - needed)
	return needed
}

func (m *memory) give(taken int64) { m.free.Release(taken) }
