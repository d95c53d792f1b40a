// Package realtime compares a trace that went through sockets and services in real time with the same trace in virtual
// time, request by request, and says where the time went that only real time takes.
//
// Both have the same arrivals, prompts of the same token ids, answers of the same lengths, and engines of the same
// profile and blocks, taken in turn in the same order. Steps have no noise in either. A generated token depends on the
// prompt in real time and on the request's number in virtual time; both fill and evict as many blocks, and no prompt
// that is made of a trace's block ids can hit them, so hits are the same.
//
// It boots nothing: the caller runs engines and services, and hands in what was measured.
package realtime

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// Policy is the routing policy that both runs have: it needs nothing of the engines that time could change.
const Policy = "round-robin"

// Tolerance is how far the ratio of two means may be from 1.
const Tolerance = 0.02

// What all engines are, beside their profile.
const (
	BlockSize   = 16
	MaxModelLen = 262_144 // as package sim has it
)

// Virtual runs the trace in virtual time on so many engines; the profile's KVTokens say how many blocks each has.
// frontEnd is added to every TTFT. The answers are in order of the trace.
func Virtual(t workload.Trace, engines int, p enginesim.Profile, frontEnd time.Duration) ([]sim.Answer, error) {
	w := sim.FromTrace(t, 1)
	answers := make([]sim.Answer, 0, len(t.Requests))
	_, err := sim.Run(sim.Options{
		Pods: engines, Profile: p, BlockSize: BlockSize, Noise: -1, Policy: Policy, FrontEnd: frontEnd,
		Answered: func(a sim.Answer) { answers = append(answers, a) },
	}, &w, nil)
	if err != nil {
		return nil, fmt.Errorf("simulate in virtual time: %w", err)
	}
	slices.SortFunc(answers, func(a, b sim.Answer) int { return cmp.Compare(a.Request, b.Request) })
	return answers, nil
}

// Seats tells for engines, by name and URL, which one in turn each is for a router: in order of their ids in the
// registry, from 0.
func Seats(urls map[string]string) (map[string]int, error) {
	ids := make(map[string]string, len(urls))
	for name, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("read the URL of %s: %w", name, err)
		}
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			return nil, fmt.Errorf("read the port of %s: %w", name, err)
		}
		ids[name] = fleet.EngineIDFromURL(u.Hostname(), port, 0)
	}
	names := slices.SortedFunc(maps.Keys(ids), func(a, b string) int { return cmp.Compare(ids[a], ids[b]) })
	seats := make(map[string]int, len(names))
	for seat, name := range names {
		seats[name] = seat
	}
	return seats, nil
}
