package prefix

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A reader, of whatever kind its mark is, holds what it can see; when it has gone the epoch moves on.
func TestEpochsHold(t *testing.T) {
	for start := range 4 {
		for kind := range 2 {
			var e epochs
			for range start {
				e.move()
			}
			taken := e.now.Load()
			mark := &e.marks[kind*17].readers[kind]
			mark.Add(1)
			for range 4 {
				e.move()
			}
			if past(taken, e.now.Load()) {
				t.Errorf("from epoch %d to %d past a mark of kind %d", taken, e.now.Load(), kind)
			}
			mark.Add(-1)
			for range 2 {
				e.move()
			}
			if !past(taken, e.now.Load()) {
				t.Errorf("stays in epoch %d without readers", e.now.Load())
			}
		}
	}
}

// Readers take a thing from where it lies and look at it for a while; the writer breaks each thing that it has taken
// away as soon as it may. No reader holds a broken one.
func TestEpochsBesideWriter(t *testing.T) {
	type thing struct{ broken atomic.Bool }
	type taken struct {
		*thing
		epoch uint64
	}
	var e epochs
	var lies atomic.Pointer[thing]
	lies.Store(&thing{})
	var done atomic.Bool
	var looks atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !done.Load() {
				mark := e.enter()
				it := lies.Load()
				pause()
				for range 20 {
					if it.broken.Load() {
						t.Error("a reader holds what is used again")
						done.Store(true)
						break
					}
				}
				mark.Add(-1)
				if looks.Add(1)%64 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	var away []taken
	deadline := time.Now().Add(20 * time.Second)
	for n := 0; !done.Load() && (n < 20_000 || e.now.Load() < 300 && time.Now().Before(deadline)); n++ {
		away = append(away, taken{lies.Swap(&thing{}), e.now.Load()})
		if !e.move() {
			runtime.Gosched()
		}
		for len(away) > 0 && past(away[0].epoch, e.now.Load()) {
			away[0].broken.Store(true)
			away = away[1:]
		}
	}
	done.Store(true)
	wg.Wait()
	t.Logf("%d looks, %d epochs", looks.Load(), e.now.Load())
}
