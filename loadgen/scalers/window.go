package scalers

import (
	"slices"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// sample is a value at a time.
type sample struct {
	at    time.Time
	value float64
}

// window is what was sampled of late. The zero window is empty.
type window struct{ samples []sample }

// add takes a sample in and forgets those older than keep.
func (w *window) add(now time.Time, value float64, keep time.Duration) {
	w.samples = append(w.samples, sample{now, value})
	for w.samples[0].at.Before(now.Add(-keep)) {
		w.samples = w.samples[1:]
	}
}

// mean is that of the samples after a time; zero of none.
func (w *window) mean(after time.Time) float64 {
	sum, n := 0., 0.
	for _, s := range w.samples {
		if s.at.After(after) {
			sum += s.value
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// highest is the greatest of the samples after a time; zero of none.
func (w *window) highest(after time.Time) float64 {
	top := 0.
	for _, s := range w.samples {
		if s.at.After(after) {
			top = max(top, s.value)
		}
	}
	return top
}

// growth is how much a counter grew between the first and the last sample, and in which time.
func (w *window) growth() (by, seconds float64) {
	if len(w.samples) == 0 {
		return 0, 0
	}
	first, last := w.samples[0], w.samples[len(w.samples)-1]
	return max(0, last.value-first.value), last.at.Sub(first.at).Seconds()
}

// recent are the requests that ended of late, without those that failed.
type recent struct {
	requests []decide.Request
	at       []time.Time
}

// add takes in those that ended since the last time, and forgets those older than keep.
func (r *recent) add(now time.Time, ended []decide.Request, keep time.Duration) {
	for _, e := range ended {
		if !e.Failed {
			r.requests, r.at = append(r.requests, e), append(r.at, now)
		}
	}
	old := 0
	for old < len(r.at) && r.at[old].Before(now.Add(-keep)) {
		old++
	}
	r.requests, r.at = r.requests[old:], r.at[old:]
}

// mean is that of a figure; zero where nothing ended.
func (r *recent) mean(of func(*decide.Request) float64) float64 {
	sum := 0.
	for i := range r.requests {
		sum += of(&r.requests[i])
	}
	return sum / max(1, float64(len(r.requests)))
}

// p90 is the 90th percentile of a figure of those that have it, that is, where it is over zero; zero where none has.
func (r *recent) p90(of func(*decide.Request) float64) float64 {
	var values []float64
	for i := range r.requests {
		if v := of(&r.requests[i]); v > 0 {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, len(values)*9/10)]
}
