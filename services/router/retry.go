package router

import "sync"

const (
	retryShare = 0.1 // of traffic, beyond a few
	retryBurst = 10
)

// retryBudget lets a tenth of the requests be tried again, and a few more. The zero value is full.
type retryBudget struct {
	mu    sync.Mutex
	spent float64
}

func (b *retryBudget) request() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-retryShare)
}

func (b *retryBudget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent+1 > retryBurst {
		return false
	}
	b.spent++
	return true
}

// give takes back one that was not tried: no engine was left.
func (b *retryBudget) give() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-1)
}
