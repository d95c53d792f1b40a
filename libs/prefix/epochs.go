package prefix

import (
	"sync/atomic"
	"unsafe"
)

// epochs tell the writer when no reader can still see what was taken out of its way. A reader marks itself, in one of
// two kinds by turns: that of the epoch in which it begins. The writer moves from epoch n to n+1 only when no reader
// is marked with the kind of n-1, which n+1 gets. What is taken out in epoch n is used again in n+2 (past).
//
// It does not matter whether the epoch has moved between a reader's look at it and its mark. A mark of n's kind lets
// the writer move to n+1 and no further; one of the other kind does not let it move at all. If the writer, about to
// move to n+1, has just looked past the place of the mark, then it takes nothing out before it has moved, and the same
// holds for n+1. Either way what a reader can see stays for as long as the reader does.
type epochs struct {
	now   atomic.Uint64
	_     [120]byte // every reader reads now: it has a cache line, and the one fetched with it, to itself
	marks [64]struct {
		readers [2]atomic.Int64 // by kind
		_       [112]byte
	}
}

// enter marks the caller as a reader until it adds -1 to what enter returns.
func (e *epochs) enter() *atomic.Int64 {
	// Any place would do. The stack's address spreads goroutines over them and keeps each at its own, which the cache
	// of its core then holds.
	var here byte
	place := uint64(uintptr(unsafe.Pointer(&here))>>11) * 0x9e3779b97f4a7c15 >> 58
	now := e.now.Load()
	pause()
	mark := &e.marks[place].readers[now&1]
	mark.Add(1)
	return mark
}

// move begins the next epoch and reports whether it could. Only the writer calls it.
func (e *epochs) move() bool {
	now := e.now.Load()
	for i := range e.marks {
		if e.marks[i].readers[(now+1)&1].Load() != 0 {
			return false
		}
	}
	pause()
	e.now.Store(now + 1)
	return true
}

// past reports whether all who could see what was taken out in epoch then are gone.
func past(then, now uint64) bool { return now-then >= 2 }
