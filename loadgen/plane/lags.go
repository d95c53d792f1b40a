package plane

import (
	"cmp"
	"slices"
	"sync"
	"time"

	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// lags are what the deltas that an index applied since the last mark had waited, each counted as often as it has block
// operations.
type lags struct {
	mu     sync.Mutex
	on     bool
	deltas []lag
	sum    int // of their operations
}

type lag struct {
	received  time.Duration // since ingest received the oldest batch in it
	published time.Duration // since the engine's time of the newest batch in it, by the same clock here
	ops       int
}

// add notes a delta that has just become visible.
func (l *lags) add(d *eventsv1.Delta) {
	now := time.Now().UnixNano()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.on {
		return
	}
	n := operations(d.Runs)
	l.sum += n
	l.deltas = append(l.deltas, lag{received: time.Duration(now - d.Received), ops: n,
		published: time.Duration(now - int64(d.Batch.GetTs()*1e9))})
}

// operations counts the copies that runs add or remove.
func operations(runs []*eventsv1.Run) (n int) {
	for _, r := range runs {
		if r.Copy != eventsv1.Change_CHANGE_UNSPECIFIED {
			n += max(len(r.Hashes), len(r.Keys))
		}
	}
	return n
}

func (l *lags) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on, l.deltas, l.sum = true, l.deltas[:0], 0
}

// Quantiles are in milliseconds, over block operations.
type quantiles struct {
	Received, Published percentiles
	Ops                 int
}

type percentiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (l *lags) quantiles() quantiles {
	l.mu.Lock()
	deltas, ops := slices.Clone(l.deltas), l.sum
	l.mu.Unlock()
	return quantiles{Ops: ops, Received: percentilesOf(deltas, func(d lag) time.Duration { return d.received }),
		Published: percentilesOf(deltas, func(d lag) time.Duration { return d.published })}
}

// ops is how many operations were applied since the last mark.
func (l *lags) ops() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// percentilesOf sorts the deltas by what of names. A percentile is the least value that so many operations do not exceed.
func percentilesOf(deltas []lag, of func(lag) time.Duration) (p percentiles) {
	slices.SortFunc(deltas, func(a, b lag) int { return cmp.Compare(of(a), of(b)) })
	all := 0
	for _, d := range deltas {
		all += d.ops
	}
	at := func(q float64) float64 {
		sum := 0
		for _, d := range deltas {
			if sum += d.ops; float64(sum) >= q*float64(all) {
				return of(d).Seconds() * 1e3
			}
		}
		return 0
	}
	if len(deltas) > 0 {
		p = percentiles{P50: at(.5), P99: at(.99), Max: of(deltas[len(deltas)-1]).Seconds() * 1e3}
	}
	return p
}
