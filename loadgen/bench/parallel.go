package bench

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/warmpath/warmpath/libs/prefix"
)

// throughput is how many matches a second so many goroutines do on as many cores.
func (m *meter) throughput(x Index, readers int) int {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(readers))
	var all atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for r := range readers {
		wg.Go(func() {
			dst := make([]prefix.Depth, 0, 64)
			n := r * 1009
			for time.Since(start) < m.o.Round {
				for range 8 {
					dst = x.Match(m.w.keys(n), dst[:0])
					n++
				}
				all.Add(8)
			}
		})
	}
	wg.Wait()
	return int(float64(all.Load()) / time.Since(start).Seconds())
}

// besideWriter times matches while another engine stores and removes prompts of one event at a set rate.
func (m *meter) besideWriter(x Index) Beside {
	const engine = holders + 1
	stop := make(chan struct{})
	start := time.Now()
	written := make(chan int)
	go func() {
		blocks := 0
		for i := 0; ; i++ {
			c := &m.w.short[i%len(m.w.short)]
			for _, s := range []*Step{c.store(engineName(engine), 0, runLength), c.remove(engineName(engine), 0, runLength)} {
				select {
				case <-stop:
					written <- blocks
					return
				default:
				}
				x.Apply(s)
				blocks += runLength
				due := start.Add(time.Duration(blocks) * time.Second / writtenPerS)
				time.Sleep(time.Until(due))
			}
		}
	}()
	var times []time.Duration
	dst := make([]prefix.Depth, 0, 64)
	for n := 0; n == 0 || time.Since(start) < 2*m.o.Round; n++ {
		began := time.Now()
		dst = x.Match(m.w.keys(n), dst[:0])
		times = append(times, time.Since(began))
	}
	lasted := time.Since(start)
	close(stop)
	blocks := <-written
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[int(math.Ceil(share*float64(len(times))))-1].Nanoseconds()) / 1e3
	}
	return Beside{
		P50US: at(0.5), P99US: at(0.99), RequestedPerS: writtenPerS,
		WrittenPerS: int(float64(blocks) / lasted.Seconds()),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// heap is what lives on it.
func heap() int {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}

// allocations is how many one call makes, while nothing else runs.
func allocations(f func()) float64 {
	const calls = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / calls
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
