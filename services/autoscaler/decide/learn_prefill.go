package decide

import (
	"math"
	"time"
)

const (
	prefillMemory = .999 // what one prefill leaves of those before it
	priorPrefills = 20   // that the prior counts for
	prefillSlack  = .2   // share that a prefill may be off at first
	usualGate     = 2.58 // standard deviations: 99 %
)

// prefills learns p0 and 1/V of s = p0 + u/V by discounted normal equations, u in thousands of tokens. Each prefill
// counts by its relative error, since long ones vary more. One far off the line is drawn to where 99 % lie: a single
// outlier moves little, and a model that is wrong is still unlearned, as the spread grows with what it draws.
type prefills struct {
	XX     float64 `json:"xx"`
	XU     float64 `json:"xu"`
	UU     float64 `json:"uu"`
	XY     float64 `json:"xy"`
	UY     float64 `json:"uy"`
	N      float64 `json:"n"`      // prefills, discounted
	Spread float64 `json:"spread"` // relative standard deviation, squared
}

// line is what is learned: seconds of a prefill of u thousand tokens.
type line struct{ overhead, kilo float64 }

func (l line) seconds(u float64) float64 { return l.overhead + l.kilo*u }

// fit is the line of prior and prefills together. V stays within a quarter and four times the prior's.
func (p *prefills) fit(m *Model) line {
	prior := line{m.Overhead, 1000 / m.Rate}
	xx, xu, uu, xy, uy := p.XX, p.XU, p.UU, p.XY, p.UY
	u := .2
	for range priorPrefills {
		s := prior.seconds(u)
		w := 1 / (s * s)
		xx, xu, uu, xy, uy = xx+w, xu+w*u, uu+w*u*u, xy+w*s, uy+w*u*s
		u *= 1.3
	}
	det := xx*uu - xu*xu
	if !(det > 0) {
		return prior
	}
	kilo := min(max((xx*uy-xu*xy)/det, prior.kilo/4), prior.kilo*4)
	return line{min(max((xy-kilo*xu)/xx, 0), 20*prior.overhead), kilo}
}

func (p *prefills) learn(tokens int, took time.Duration, now line, m *Model) {
	u, s := float64(tokens)/1000, took.Seconds()
	if p.N == 0 {
		p.Spread = prefillSlack * prefillSlack
	}
	expected := now.seconds(u)
	gate := usualGate * math.Sqrt(p.Spread)
	off := min(max(s/expected-1, -gate), gate)
	p.Spread += .02 * (off*off - p.Spread)
	p.Spread = max(p.Spread, 1e-4)
	s = expected * (1 + off)
	prior := m.Overhead + u*1000/m.Rate
	w := 1 / (prior * prior)
	p.XX, p.XU, p.UU = prefillMemory*p.XX+w, prefillMemory*p.XU+w*u, prefillMemory*p.UU+w*u*u
	p.XY, p.UY = prefillMemory*p.XY+w*s, prefillMemory*p.UY+w*u*s
	p.N = prefillMemory*p.N + 1
}

// confidence is 0 for the prior and nears 1 with many prefills that lie on the line.
func (p *prefills) confidence() float64 {
	if p.N == 0 {
		return 0
	}
	return p.N / (p.N + priorPrefills) * min(1, .3/math.Sqrt(p.Spread))
}
