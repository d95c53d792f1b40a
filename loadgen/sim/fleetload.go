package sim

import (
	"math"
	"time"
)

// FleetLoad is how many requests each engine had under way over virtual time.
type FleetLoad struct {
	Step float64 `json:"step_s"` // seconds of a sample
	Top  float64 `json:"top"`    // requests that 255 stands for
	// Engines has one byte a sample for each engine, in base64 in the JSON: the mean over the sample in 255ths of Top.
	Engines [][]byte `json:"engines"`
}

// At returns the requests of one engine in one sample.
func (l *FleetLoad) At(engine, sample int) float64 {
	return float64(l.Engines[engine][sample]) / 255 * l.Top
}

// maxSamples bounds what is kept of a run: with as many, two become one.
const maxSamples = 240

// loadLog samples engines whenever they are scraped; what it keeps does not grow with the run.
type loadLog struct {
	every int // scrapes a sample
	count int // scrapes in the last sample
	sums  [][]float64
}

// sample adds what the engines have under way.
func (l *loadLog) sample(engines []*engine) {
	if l.sums == nil {
		l.every, l.sums = 1, make([][]float64, len(engines))
	}
	if l.count == 0 {
		if len(l.sums[0]) == maxSamples {
			l.halve()
		}
		for i := range l.sums {
			l.sums[i] = append(l.sums[i], 0)
		}
	}
	last := len(l.sums[0]) - 1
	for i, e := range engines {
		l.sums[i][last] += float64(e.underWay())
	}
	l.count = (l.count + 1) % l.every
}

func (l *loadLog) halve() {
	for i, s := range l.sums {
		for n := range len(s) / 2 {
			s[n] = s[2*n] + s[2*n+1]
		}
		l.sums[i] = s[:len(s)/2]
	}
	l.every *= 2
}

// done returns the samples that are whole, or the only one.
func (l *loadLog) done(scrape time.Duration) FleetLoad {
	out := FleetLoad{Step: scrape.Seconds() * float64(max(1, l.every)), Engines: make([][]byte, len(l.sums))}
	for i := range l.sums {
		if l.count > 0 && len(l.sums[i]) > 1 {
			l.sums[i] = l.sums[i][:len(l.sums[i])-1]
		}
		for _, sum := range l.sums[i] {
			out.Top = max(out.Top, sum/float64(l.every))
		}
	}
	for i := range l.sums {
		out.Engines[i] = make([]byte, len(l.sums[i]))
		for n, sum := range l.sums[i] {
			if out.Top > 0 {
				out.Engines[i][n] = byte(math.Round(255 * sum / float64(l.every) / out.Top))
			}
		}
	}
	return out
}
