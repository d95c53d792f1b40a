package sim

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is a 95 % confidence interval.
type Interval [2]float64

const resamples = 10_000

// MeanInterval is the mean of values and its interval by Student's t.
func MeanInterval(values []float64) (m float64, ci Interval) {
	m = mean(values)
	n := len(values)
	if n < 2 {
		return m, Interval{m, m}
	}
	sum := 0.
	for _, v := range values {
		sum += (v - m) * (v - m)
	}
	half := t95(n-1) * math.Sqrt(sum/float64(n-1)/float64(n))
	return m, Interval{m - half, m + half}
}

// t95 is the 97.5 % quantile of Student's distribution.
func t95(freedom int) float64 {
	table := []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
		2.101, 2.093, 2.086}
	if freedom <= len(table) {
		return table[freedom-1]
	}
	return 1.96 + 2.5/float64(freedom)
}

// PairedInterval is the mean difference a-b of runs with the same arrivals, and its bootstrap interval.
func PairedInterval(a, b []float64, seed uint64) (diff float64, ci Interval) {
	n := min(len(a), len(b))
	d := make([]float64, n)
	for i := range n {
		d[i] = a[i] - b[i]
	}
	diff = mean(d)
	if n < 2 {
		return diff, Interval{diff, diff}
	}
	rng := rand.New(rand.NewPCG(seed, 0xb007))
	means := make([]float64, resamples)
	for i := range means {
		sum := 0.
		for range n {
			sum += d[rng.IntN(n)]
		}
		means[i] = sum / float64(n)
	}
	slices.Sort(means)
	return diff, Interval{means[resamples*25/1000], means[resamples*975/1000]}
}
