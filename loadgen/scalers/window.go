package scalers

import "time"

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
