package decide

import (
	"slices"
	"time"
)

// startups are the latest times from created to ready, in seconds.
type startups struct {
	Ring [20]float32 `json:"ring"`
	N    int         `json:"n"` // seen, up to twice the ring
}

func (s *startups) put(d time.Duration) {
	if d <= 0 || d > 24*time.Hour {
		return
	}
	s.Ring[s.N%len(s.Ring)] = float32(d.Seconds())
	if s.N++; s.N >= 2*len(s.Ring) {
		s.N -= len(s.Ring)
	}
}

// seconds is the .9 quantile once five are known; before, a tenth more than was configured.
func (s *startups) seconds(configured time.Duration) float64 {
	n := min(s.N, len(s.Ring))
	if n < 5 {
		return 1.1 * configured.Seconds()
	}
	sorted := s.Ring
	slices.Sort(sorted[:n])
	at := .9 * float64(n-1)
	i := int(at)
	if i+1 >= n {
		return float64(sorted[n-1])
	}
	return float64(sorted[i]) + (at-float64(i))*float64(sorted[i+1]-sorted[i])
}
