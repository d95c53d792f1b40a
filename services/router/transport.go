package router

import (
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	retryShare  = 0.1 // of traffic, beyond a few
	retryBurst  = 10
	dialTime    = 2 * time.Second
	idleConns   = 512 // for each engine
	streamRead  = 32 << 10
	socketRead  = 16 << 10
	socketWrite = 64 << 10
)

// newTransport keeps connections to engines. No time limit but for dialling: a prompt may wait long for its turn.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // the usage chunk must be readable
		ReadBufferSize:      socketRead,
		WriteBufferSize:     socketWrite,
	}
}

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
