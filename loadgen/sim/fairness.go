package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Crowd is tenants that together ask for more than a fleet can do, and one light tenant beside them that asks for little.
// Their prompts share nothing.
type Crowd struct {
	Greedy float64       // requests a second of tenant 0
	Others []float64     // of tenants 1 and on; the last one is the light one
	Length time.Duration // of the arrivals
}

// DefaultCrowd asks four engines for far more than they can do: one tenant for many times its share, three for
// more than theirs, one for little.
func DefaultCrowd() Crowd {
	return Crowd{Greedy: 40, Others: []float64{8, 8, 8, .5}, Length: 2 * time.Minute}
}

// Workload draws the arrivals: Poisson, prompts of 500 to 7,500 tokens, answers of 50 to 350.
func (c Crowd) Workload(seed uint64) Workload {
	rng := rand.New(rand.NewPCG(seed, 0xfa12))
	stage := Stage{}
	id := uint64(1) << 40
	for tenant, rate := range append([]float64{c.Greedy}, c.Others...) {
		for _, at := range arrivals(rng, phase{rate, c.Length.Seconds()}, true) {
			id++
			s := one(at, Prompt{{id, 500 + rng.IntN(7001)}}, 50+rng.IntN(301))
			s.Tenant = tenant
			stage.Sessions = append(stage.Sessions, s)
		}
	}
	slices.SortStableFunc(stage.Sessions, func(a, b Session) int { return int(a.At - b.At) })
	return Workload{Name: "crowd", Stages: []Stage{stage}}
}

// Share is what one tenant got.
type Share struct {
	Offered int     `json:"offered"`
	Tokens  int     `json:"tokens"` // prompt and output of its answers that ended while requests arrived
	TTFTP50 float64 `json:"ttft_p50_s"`
	TTFTP99 float64 `json:"ttft_p99_s"`
}

// FairnessResult is how a crowd was served in one order.
type FairnessResult struct {
	Order  Order   `json:"order"`
	Shares []Share `json:"shares"` // by tenant
	// Jain is the fairness index (Jain, Chiu and Hawe, 1984) of the tokens of the tenants that always had something
	// waiting, all but the light one: 1 is alike, 1/n is all to one of n.
	Jain    float64 `json:"jain"`
	Goodput float64 `json:"goodput"` // share of all offered requests that kept both objectives
	TokS    float64 `json:"tok_s"`   // of all tenants while requests arrived
}

// Fairness serves a crowd on a fleet in one order. Equal arguments give equal results.
func Fairness(o Options, c Crowd, order Order) (*FairnessResult, error) {
	o.Order = order
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	w := c.Workload(o.Seed)
	f, err := newWorld(o, &w)
	if err != nil {
		return nil, err
	}
	f.run(&w)
	r := &FairnessResult{Order: order, Shares: make([]Share, 1+len(c.Others)), Goodput: measure(f.answers, o).Goodput}
	ttft := make([][]float64, len(r.Shares))
	for _, a := range f.answers {
		s := &r.Shares[a.tenant]
		s.Offered++
		ttft[a.tenant] = append(ttft[a.tenant], (a.first - a.sent).Seconds())
		if a.last <= c.Length {
			s.Tokens += a.prompt + a.output
		}
	}
	var got []float64
	for i := range r.Shares {
		s := &r.Shares[i]
		s.TTFTP50, s.TTFTP99 = quantile(ttft[i], .5), quantile(ttft[i], .99)
		r.TokS += float64(s.Tokens) / c.Length.Seconds()
		if i < len(r.Shares)-1 {
			got = append(got, float64(s.Tokens))
		}
	}
	r.Jain = jain(got)
	return r, nil
}

func jain(values []float64) float64 {
	sum, squares := 0., 0.
	for _, v := range values {
		sum, squares = sum+v, squares+v*v
	}
	if squares == 0 {
		return 1
	}
	return sum * sum / (float64(len(values)) * squares)
}
