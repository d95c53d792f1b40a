package decide

import "math"

// Constants of the levels: a tick is five seconds (autoscaler policy, section 2; autoscaler, section 7.4).
const (
	tick       = 5.  // seconds that the constants below are for
	alpha      = .25 // what one tick counts in a level
	beta       = .02 // and in its trend
	phi        = .97 // what a tick leaves of a trend
	steepest   = .1  // of the level that a tick may tell the trend: a jump is none
	latestMean = 4   // ticks
)

// level is an exponential level with a damped trend (Holt; Gardner and McKenzie, 1985). The trend is a tick's.
type level struct {
	Level float64 `json:"level"`
	Trend float64 `json:"trend"`
	Set   bool    `json:"set"`
}

// next folds in what came over so many ticks. trend says whether to follow it: a level without one is plain.
func (l level) next(x, ticks float64, trend bool) level {
	if !l.Set {
		return level{Level: x, Set: true}
	}
	a, b, damped := alpha, beta, phi*l.Trend
	if ticks != 1 {
		a, b, damped = 1-math.Pow(1-alpha, ticks), 1-math.Pow(1-beta, ticks), math.Pow(phi, ticks)*l.Trend
	}
	if !trend {
		return level{Level: l.Level + a*(x-l.Level), Set: true}
	}
	expected := l.Level + damped*ticks
	now := expected + a*(x-expected)
	jump := steepest * math.Abs(l.Level)
	return level{Level: now, Trend: damped + b*min(max((now-l.Level)/ticks-damped, -jump), jump), Set: true}
}

// ahead is the level so many ticks from now, if it rises; a falling one is not forecast.
func (l level) ahead(ticks float64) float64 {
	return max(l.Level, l.Level+l.Trend*phi*(1-math.Pow(phi, ticks))/(1-phi), 0)
}

// latest are the last ticks' values.
type latest struct {
	Last [latestMean]float64 `json:"last"`
	N    int                 `json:"n"` // seen
}

func (l *latest) put(x float64) {
	l.Last[l.N%latestMean] = x
	if l.N++; l.N >= 2*latestMean {
		l.N -= latestMean
	}
}

func (l *latest) mean() float64 {
	sum, n := 0., min(l.N, latestMean)
	for _, x := range l.Last[:n] {
		sum += x
	}
	return sum / float64(max(n, 1))
}

// burst is the variance of the counts of arrivals over that of a Poisson process, from successive differences, so that
// a slow change of the rate is none: sum (difference)^2 / (2 mean), over two minutes.
type burst struct {
	Squares float64 `json:"squares"`
	Mean    float64 `json:"mean"`
	Before  float64 `json:"before"`
	Ticks   float64 `json:"ticks"` // seen, up to 24
}

func (b *burst) put(count float64) {
	if b.Ticks > 0 {
		share := 1 / min(b.Ticks, 24)
		d := count - b.Before
		b.Squares += share * (d*d - b.Squares)
		b.Mean += share * (count - b.Mean)
	}
	b.Before, b.Ticks = count, min(b.Ticks+1, 25)
}

// ratio is 1 until it is known, and at most 6.
func (b *burst) ratio() float64 {
	if b.Ticks < 4 || b.Mean <= 0 {
		return 1
	}
	return min(max(b.Squares/(2*b.Mean), 1), 6)
}
