package scalers

import (
	"cmp"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// filled is a policy with its defaults written out, as decide documents them.
func filled(p decide.Policy) decide.Policy {
	p.TTFT = cmp.Or(p.TTFT, 2*time.Second)
	p.ITL = cmp.Or(p.ITL, 50*time.Millisecond)
	p.Startup = cmp.Or(p.Startup, 120*time.Second)
	p.Prior = filledModel(p.Prior)
	return p
}

func filledModel(m decide.Model) decide.Model {
	m.Overhead = cmp.Or(m.Overhead, .015)
	m.Rate = cmp.Or(m.Rate, 16_000)
	m.Step = cmp.Or(m.Step, 14)
	m.Sequence = cmp.Or(m.Sequence, .05)
	m.Kilo = cmp.Or(m.Kilo, .056)
	m.KVTokens = cmp.Or(m.KVTokens, 300_000)
	m.MaxSeqs = cmp.Or(m.MaxSeqs, 256)
	return m
}

// bounded keeps n within what the operator allows. At least one replica stays: none of the compared runs has idle pools.
func bounded(p decide.Policy, role decide.Role, n int) int {
	b := p.Bounds[role]
	n = max(n, b.Min, 1)
	if b.Max > 0 {
		n = min(n, b.Max)
	}
	return n
}
