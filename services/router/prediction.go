package router

import (
	"math"
	"slices"
	"sync"
)

const errorsKept = 255

// predictionErrors are the latest relative errors of predicted TTFT.
type predictionErrors struct {
	mu     sync.Mutex
	latest []float64
	next   int
}

func (p *predictionErrors) add(predicted, measured float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := math.Abs(predicted-measured) / max(measured, 1e-6)
	if len(p.latest) < errorsKept {
		p.latest = append(p.latest, e)
		return
	}
	p.latest[p.next] = e
	p.next = (p.next + 1) % errorsKept
}

// median is that of the latest; 0 of none.
func (p *predictionErrors) median() float64 {
	p.mu.Lock()
	sorted := slices.Clone(p.latest)
	p.mu.Unlock()
	if len(sorted) == 0 {
		return 0
	}
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
