package prefix

import (
	"sync/atomic"
	"unsafe"
)

// epochs tell the writer when no reader can still see what was taken out of its way. Readers mark themselves under
// the epoch in which they begin; the writer moves to the next epoch only when the one before this has no marks left.
// So what was taken out in epoch e, and is found by nobody who begins in e+1, is seen by nobody in e+2.
type epochs struct {
	now   atomic.Uint64
	_     [120]byte // now is read by every reader: it has a cache line, and the one fetched with it, to itself
	marks [64]struct {
		readers [2]atomic.Int64 // in even and in odd epochs
		_       [112]byte
	}
}

// enter marks the caller as a reader until it adds -1 to what enter returns.
func (e *epochs) enter() *atomic.Int64 {
	// Any counter would do. The stack's address spreads goroutines over them and keeps each at its own, which the
	// cache of its core then holds.
	var here byte
	m := &e.marks[uint64(uintptr(unsafe.Pointer(&here))>>11)*0x9e3779b97f4a7c15>>58]
	for {
		now := e.now.Load()
		pause()
		n := &m.readers[now&1]
		n.Add(1)
		// The writer may have looked before the mark was made and have moved twice since. Then it protects nothing.
		if e.now.Load() == now {
			return n
		}
		n.Add(-1)
	}
}

// move begins the next epoch and reports whether it could. Only the writer calls it.
func (e *epochs) move() bool {
	now := e.now.Load()
	for i := range e.marks {
		if e.marks[i].readers[(now+1)&1].Load() != 0 {
			return false
		}
	}
	e.now.Store(now + 1)
	return true
}

// past reports whether all who could see what was taken out in epoch then are gone.
func past(then, now uint64) bool { return now-then >= 2 }
