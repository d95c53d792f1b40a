// Package sim runs a fleet of simulated engines and a router in virtual time, so that routing policies can be compared
// on the same arrivals: seeded, bit-reproducible, thousands of times faster than the real thing.
//
// The engines are those of package enginesim, the router's decisions are made by services/router/ledger and policy,
// their matches come from libs/prefix fed by the engines' own events: the code that runs in production, unchanged.
// What is simulated is time alone: steps of engines, the delay until events are visible, the scraping of metrics.
//
// It does not simulate HTTP, tokenizers, NATS or lost processes, and gives a policy nothing that a router would not
// know; only the policy called oracle sees the truth.
package sim

import (
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// Options describe a fleet and what is asked of it.
type Options struct {
	Pods      int               // engines of role both; 0 is 8 where there are no others
	Prefill   int               // engines beside them that compute prompts for others
	Decode    int               // engines beside them that have prompts computed by others
	Profile   enginesim.Profile // of every engine; the zero value is Qwen3-32B on two H100
	Slow      map[int]float64   // engines by number that are so many times slower
	BlockSize int               // tokens per block; 0 is 16
	KV        float64           // factor on the profile's KV capacity; 0 is 1
	Noise     float64           // sigma of a log-normal factor on every step; 0 is 0.03, below 0 is none
	Routers   int               // before the engines, each of which gets its share of requests at random; 0 is one
	Peers     time.Duration     // from a router's telling of its ledger to its peers' hearing; 0 is 1 ms, below 0 none hears
	Policy    string            // one of Policies, or Placed
	Placed    []int             `json:",omitempty"` // with policy Placed, the engine of each request in the order in which they are sent
	Seed      uint64            // of noise, ties and random choices
	Lag       time.Duration     // from the end of a step until its events are visible; 0 is 20 ms, below 0 is none
	Loss      float64           // share of event batches that are lost; a gap is seen at the next batch and replayed
	NoReplay  bool              // engines have no replay endpoint: what is lost stays lost
	Outages   []Outage          // engines that are lost for a while
	Scrape    time.Duration     // between two scrapes of an engine's metrics; 0 is 50 ms
	FrontEnd  time.Duration     // what tokenizing and HTTP add to every TTFT
	Network   Network           // between the engines
	SLO       SLO
	Order     Order `json:",omitempty"` // who waits in the router, and in which order; "" is nobody
	// Answered, if not nil, is told of each request as it ends.
	Answered func(Answer) `json:"-"`
}

// SLO is what a good answer keeps. The zero value is 2 s and 50 ms.
type SLO struct {
	TTFT time.Duration // to the first token
	ITL  time.Duration // mean time between two tokens
}

func defaultSLO() SLO { return SLO{TTFT: 2 * time.Second, ITL: 50 * time.Millisecond} }

const (
	defaultPods   = 8
	defaultLag    = 20 * time.Millisecond
	defaultScrape = 50 * time.Millisecond
	defaultNoise  = 0.03
	defaultPeers  = time.Millisecond
)

func (o Options) withDefaults() (Options, error) {
	if o.Pods+o.Prefill+o.Decode == 0 {
		o.Pods = defaultPods
	}
	o.Profile = o.profile()
	if o.BlockSize == 0 {
		o.BlockSize = 16
	}
	if o.KV == 0 {
		o.KV = 1
	}
	if o.SLO == (SLO{}) {
		o.SLO = defaultSLO()
	}
	if o.Network.Bandwidth == 0 {
		o.Network.Bandwidth = defaultBandwidth
	}
	o.Network.Setup = orNone(o.Network.Setup, defaultSetup)
	if o.Scrape == 0 {
		o.Scrape = defaultScrape
	}
	if o.Peers == 0 {
		o.Peers = defaultPeers
	}
	o.Lag, o.Noise = orNone(o.Lag, defaultLag), orNone(o.Noise, defaultNoise)
	if o.Pods < 0 || o.Prefill < 0 || o.Decode < 0 || o.Engines() > 1<<16 || o.Network.Bandwidth < 1 {
		return o, fmt.Errorf("pods %d, %d, %d, bandwidth %v: out of range", o.Pods, o.Prefill, o.Decode, o.Network.Bandwidth)
	}
	if o.Routers < 0 || o.Routers > maxRouters {
		return o, fmt.Errorf("%d routers: out of range", o.Routers)
	}
	if o.Order != "" && o.Order != FIFO && o.Order != Turns {
		return o, fmt.Errorf("order %q is none of %s, %s", o.Order, FIFO, Turns)
	}
	if o.Order != "" && o.Routers > 1 {
		return o, fmt.Errorf("order %q: a queue before %d routers is not simulated", o.Order, o.Routers)
	}
	if err := o.checkOutages(); err != nil {
		return o, err
	}
	if o.Prefill+o.Decode > 0 && ablation(o.Policy) != nil {
		return o, fmt.Errorf("policy %q: the choice of two engines is not taken apart, engines must be of role both", o.Policy)
	}
	if o.BlockSize < 1 || o.KV <= 0 || o.Loss < 0 || o.Loss > 1 {
		return o, fmt.Errorf("block size %d, KV factor %v, loss %v: out of range", o.BlockSize, o.KV, o.Loss)
	}
	return o, nil
}

// profile is that of the engines.
func (o Options) profile() enginesim.Profile {
	if o.Profile.Name == "" {
		return enginesim.Qwen3_32B_TP2_H100
	}
	return o.Profile
}

// orNone is the default for 0 and 0 for less.
func orNone[T int64 | float64 | time.Duration](v, initial T) T {
	switch {
	case v == 0:
		return initial
	case v < 0:
		return 0
	}
	return v
}

// Engines is how many engines there are, of all roles: first both, then prefill, then decode.
func (o Options) Engines() int {
	if o.Pods+o.Prefill+o.Decode == 0 {
		return defaultPods
	}
	return o.Pods + o.Prefill + o.Decode
}

// role is what the engine of that number is used for.
func (o Options) role(engine int) fleet.Role {
	switch {
	case engine < o.Pods:
		return fleet.Both
	case engine < o.Pods+o.Prefill:
		return fleet.Prefill
	}
	return fleet.Decode
}

// Run simulates a workload to its end. Equal arguments give equal results, to the bit. progress, if not nil, is told
// now and then how many requests have ended.
func Run(o Options, w *Workload, progress func(done int)) (*Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := o.checkPlaced(w); err != nil {
		return nil, err
	}
	f, err := newWorld(o, w)
	if err != nil {
		return nil, err
	}
	f.progress = progress
	f.run(w)
	return f.result(w), nil
}
