// Package elastic compares autoscalers in virtual time: the same arrivals, the same engines whose true speed nobody
// tells, the same start-up times, and for each autoscaler what would have become of the requests and what the fleet
// would have cost.
//
// Fleet, router and queue are those of package sim; ours decides with services/autoscaler/decide, the others are
// package scalers. It draws no conclusions: what a run shows is in its Metrics.
package elastic

import (
	"math/rand/v2"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Ours is the name of our autoscaler.
const Ours = "warmpath"

const (
	most       = 40 // replicas of a role
	gpus       = 2  // of a replica
	failed     = .02
	unsure     = .2 // how far the truth may lie off the prior
	unsureStep = .1 // of a decode step's constant part
)

// Service is in which order the router serves.
type Service string

// The orders of service.
const (
	FCFS Service = "fcfs" // as requests come, at once
	SLO  Service = "slo"  // by objectives: held until an engine has room, those that can still be answered in time first
)

// Truth is what the engines of one seed can really do.
type Truth struct{ Prefill, Decode enginesim.Profile }

// TruthOf draws the engines of a seed: the reference model, each constant off by up to 20 %, the constant part of a
// decode step by up to 10 %.
func TruthOf(seed uint64) Truth {
	rng := rand.New(rand.NewPCG(seed, 0x7247))
	off := func(by float64) float64 { return 1 + by*(2*rng.Float64()-1) }
	t := Truth{Prefill: enginesim.Reference, Decode: enginesim.Reference}
	rate := off(unsure)
	t.Prefill.Base, t.Prefill.Prefill = 15*off(unsure), t.Prefill.Prefill/rate
	t.Decode.Prefill /= rate
	t.Decode.Base *= off(unsureStep)
	t.Decode.Decode *= off(unsure)
	t.Decode.Context *= off(unsure)
	return t
}

// Model is the truth as a model of decide, for those that may see it.
func (t Truth) Model() decide.Model {
	return decide.Model{Overhead: t.Prefill.Base / 1000, Rate: 1000 / t.Prefill.Prefill, Step: t.Decode.Base,
		Sequence: t.Decode.Decode, Kilo: t.Decode.Context, KVTokens: t.Decode.KVTokens, MaxSeqs: 256}
}

// Policy is what all scalers are told of the pool.
func Policy(slo sim.SLO, startup time.Duration, headroom float64, service Service) decide.Policy {
	b := decide.Bounds{Min: 1, Max: most, GPUs: gpus}
	return decide.Policy{
		Mode: decide.On, TTFT: slo.TTFT, ITL: slo.ITL, Startup: startup, Headroom: headroom, FCFS: service == FCFS,
		Bounds: map[decide.Role]decide.Bounds{decide.Prefill: b, decide.Decode: b},
	}
}

// DefaultSLO is the objective of the reference set-up.
func DefaultSLO() sim.SLO { return sim.SLO{TTFT: 1500 * time.Millisecond, ITL: 30 * time.Millisecond} }

// GPUs are those of a replica of each role.
func GPUs() map[string]int {
	return map[string]int{string(decide.Prefill): gpus, string(decide.Decode): gpus}
}
