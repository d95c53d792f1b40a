// Package workload makes the requests that a load test sends: read from a trace in the Mooncake format, or generated
// after the statistics of the public conversation trace where that is not at hand.
//
// A workload is lengths, times and prefix identities; Tokens turns a request into token ids, the same ones on every
// run. The package sends nothing and knows no clock: times are offsets from the start of the trace.
package workload

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// BlockTokens is the number of prompt tokens behind one block id of a trace.
const BlockTokens = 512

// Request is one arrival.
type Request struct {
	At     time.Duration // since the start of the trace
	Input  int           // prompt tokens
	Output int           // tokens to generate
	// Blocks has one id for each BlockTokens prompt tokens begun; the last may stand for fewer. Requests with equal
	// ids at one position have equal prompts up to the end of that block.
	Blocks []uint64
}

// Names of the workloads, as reports print them.
const (
	Conversation = "mooncake-conversation"
	Generated    = "generated"
)

// Trace is a workload: its requests in order of time.
type Trace struct {
	Name     string
	Requests []Request
}

// Slice returns the requests of [from, to), their times counted from from. It shares the block ids with t.
func (t Trace) Slice(from, to time.Duration) Trace {
	out := Trace{Name: t.Name}
	for _, r := range t.Requests {
		if r.At >= from && r.At < to {
			r.At -= from
			out.Requests = append(out.Requests, r)
		}
	}
	return out
}

// Jitter returns the trace with each arrival moved later by U(0, most), drawn from seed. Both traces stand on a grid
// of 3 s, so that up to 28 requests arrive at one instant; 3 s of jitter smooths it.
func (t Trace) Jitter(most time.Duration, seed uint64) Trace {
	rng := rand.New(rand.NewPCG(seed, 0x6a177e72))
	out := Trace{Name: t.Name, Requests: slices.Clone(t.Requests)}
	for i := range out.Requests {
		out.Requests[i].At += time.Duration(rng.Float64() * float64(most))
	}
	out.sort()
	return out
}

func (t Trace) sort() {
	slices.SortStableFunc(t.Requests, func(a, b Request) int { return cmp.Compare(a.At, b.At) })
}
