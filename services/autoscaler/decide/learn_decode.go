package decide

import "math"

const (
	decodeNoise  = .6    // ms
	decodeWeight = .2    // of a second of one engine
	decodeMemory = .9995 // what a second leaves of those before it
	terms        = 4     // 1, sequences, thousand tokens of context, thousand tokens/s of prefill
)

type vector [terms]float64

func (v vector) dot(w vector) float64 {
	return v[0]*w[0] + v[1]*w[1] + v[2]*w[2] + v[3]*w[3]
}

// steps learns a, b, c and d of ITL = a + b n + c kv + d u by Bayesian ridge regression (Bishop, PRML, section 3.3): what
// engines did is added to the prior's precision, and forgotten towards the prior.
type steps struct {
	Seen [terms * (terms + 1) / 2]float64 `json:"seen"` // sum of x x', upper triangle by rows, over the noise's variance
	Took vector                           `json:"took"` // sum of x ITL, likewise
}

// itl is the model that the steps come to.
type itl struct {
	mean   vector // a, b, c, d
	lower  [terms][terms]float64
	priors vector // variances
	prior  Model
}

// decodePriors is the prior's standard deviation, in parts of its mean.
func decodePriors() vector { return vector{.1, .2, .2, .5} }

// fit solves for the posterior by Cholesky's decomposition. b, c and d are never below 0, a never below a tenth of the
// prior's.
func (s *steps) fit(m *Model) itl {
	prior := vector{m.Step, m.Sequence, m.Kilo, m.Mixed}
	f := itl{prior: *m}
	var precision [terms][terms]float64
	var right vector
	k := 0
	for i := range terms {
		sd := decodePriors()[i] * prior[i]
		f.priors[i] = sd * sd
		for j := i; j < terms; j++ {
			precision[i][j], precision[j][i] = s.Seen[k], s.Seen[k]
			k++
		}
		precision[i][i] += 1 / f.priors[i]
		right[i] = s.Took[i] + prior[i]/f.priors[i]
	}
	for i := range terms {
		for j := 0; j <= i; j++ {
			sum := precision[i][j]
			for l := range j {
				sum -= f.lower[i][l] * f.lower[j][l]
			}
			if i == j {
				f.lower[i][i] = math.Sqrt(max(sum, 1e-12))
			} else {
				f.lower[i][j] = sum / f.lower[j][j]
			}
		}
	}
	y := f.forward(right)
	for i := terms - 1; i >= 0; i-- {
		sum := y[i]
		for l := i + 1; l < terms; l++ {
			sum -= f.lower[l][i] * f.mean[l]
		}
		f.mean[i] = sum / f.lower[i][i]
	}
	for i := range terms {
		f.mean[i] = max(f.mean[i], 0)
	}
	f.mean[0] = max(f.mean[0], prior[0]/10)
	return f
}

func (f *itl) forward(x vector) vector {
	var y vector
	for i := range terms {
		sum := x[i]
		for l := range i {
			sum -= f.lower[i][l] * y[l]
		}
		y[i] = sum / f.lower[i][i]
	}
	return y
}

// at is the time between two tokens in ms.
func (f *itl) at(x vector) float64 { return f.mean.dot(x) }

// doubt is the standard deviation of at, in ms.
func (f *itl) doubt(x vector) float64 {
	y := f.forward(x)
	return math.Sqrt(y.dot(y))
}

// confidence is how much of the prior's doubt at x is gone.
func (f *itl) confidence(x vector) float64 {
	prior := 0.
	for i, v := range x {
		prior += v * v * f.priors[i]
	}
	return 1 - min(1, f.doubt(x)/math.Sqrt(prior))
}

// learn takes what an engine did over some seconds: ms between its tokens at x. What 99 % would not do counts as what
// they might.
func (s *steps) learn(x vector, ms, seconds float64, now *itl) {
	expected, doubt := now.at(x), now.doubt(x)
	gate := usualGate * math.Sqrt(decodeNoise*decodeNoise+doubt*doubt+.01*expected*expected)
	ms = min(max(ms, expected-gate), expected+gate)
	w := decodeWeight * min(seconds, 2*tick) / (decodeNoise * decodeNoise)
	k := 0
	for i := range terms {
		for j := i; j < terms; j++ {
			s.Seen[k] += w * x[i] * x[j]
			k++
		}
		s.Took[i] += w * x[i] * ms
	}
}

func (s *steps) forget(seconds float64) {
	rest := math.Pow(decodeMemory, seconds)
	for i := range s.Seen {
		s.Seen[i] *= rest
	}
	for i := range s.Took {
		s.Took[i] *= rest
	}
}
