package scalers

// trend predicts the next of equally spaced values: a Kalman filter of a level and its slope (local linear trend). The
// noises are in the proportion of Dynamo's predictor: level 1, slope .1, observation 10. The zero trend is empty.
type trend struct {
	level, slope float64
	p            [3]float64 // variance of level, covariance, variance of slope
	seen         int
	last         float64
}

const (
	trendLevel   = 1.
	trendSlope   = .1
	trendObserve = 10.
	trendLeast   = 5 // values, before which the last one is the prediction
)

func (t *trend) add(value float64) {
	t.seen++
	t.last = value
	if t.seen == 1 {
		t.level, t.p = value, [3]float64{trendObserve, 0, trendObserve}
		return
	}
	level := t.level + t.slope
	p := [3]float64{t.p[0] + 2*t.p[1] + t.p[2] + trendLevel, t.p[1] + t.p[2], t.p[2] + trendSlope}
	k0, k1 := p[0]/(p[0]+trendObserve), p[1]/(p[0]+trendObserve)
	off := value - level
	t.level, t.slope = level+k0*off, t.slope+k1*off
	t.p = [3]float64{(1 - k0) * p[0], (1 - k0) * p[1], p[2] - k1*p[1]}
}

// next is the value to come, not under zero.
func (t *trend) next() float64 {
	if t.seen < trendLeast {
		return t.last
	}
	return max(0, t.level+t.slope)
}
