package decide_test

import (
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pool is a timeline: a pool with a demand, decided for every five seconds.
type pool struct {
	*testing.T
	state    decide.State
	now      time.Time
	uncached float64 // totals
	output   float64
	queued   float64
	replicas map[decide.Role]int
	last     decide.Decision
}

func newPool(t *testing.T, replicas map[decide.Role]int) *pool {
	t.Helper()
	policy := decide.Policy{Prefill: 1000, Decode: 100, Headroom: 1.1}
	return &pool{T: t, state: decide.State{Policy: policy}, now: start, replicas: replicas}
}

// run lets demand, in tokens/s, come for a time.
func (p *pool) run(period time.Duration, uncached, output float64) decide.Decision {
	for end := p.now.Add(period); p.now.Before(end); {
		p.now = p.now.Add(5 * time.Second)
		p.uncached, p.output = p.uncached+5*uncached, p.output+5*output
		p.decide("")
	}
	return p.last
}

func (p *pool) decide(blind string) decide.Decision {
	p.Helper()
	o := decide.Observation{Blind: blind, Uncached: p.uncached, Output: p.output, Queued: p.queued, Replicas: p.replicas}
	again, repeated := p.state.Decide(o, p.now)
	p.state, p.last = p.state.Decide(o, p.now)
	if !reflect.DeepEqual(p.last, repeated) || !reflect.DeepEqual(p.state, again) {
		p.Fatalf("deciding twice gives %+v and %+v", repeated, p.last)
	}
	return p.last
}

func (p *pool) want(held bool, desired map[decide.Role]int, words ...string) {
	p.Helper()
	if p.last.Held != held || !maps.Equal(p.last.Desired, desired) {
		p.Fatalf("after %v: %+v, want %v held %v", p.now.Sub(start), p.last, desired, held)
	}
	for _, word := range words {
		if !strings.Contains(p.last.Why, word) {
			p.Fatalf("%q does not say %q", p.last.Why, word)
		}
	}
}

func split(prefill, decoders int) map[decide.Role]int {
	return map[decide.Role]int{decide.Prefill: prefill, decide.Decode: decoders}
}

func TestDemandBecomesReplicas(t *testing.T) {
	p := newPool(t, split(1, 1))
	p.run(time.Minute, 4500, 250)
	p.want(false, split(5, 3), "prefill 5 (has 1): 4.50 busy x 1.10 headroom", "demand 4500 uncached and 250 output")
	if p.last.Uncached != 4500 || p.last.Output != 250 {
		t.Fatalf("demand %+v", p.last)
	}
}

func TestEnginesForBothTakeBothDemands(t *testing.T) {
	p := newPool(t, map[decide.Role]int{decide.Both: 2})
	p.run(time.Minute, 1500, 150)
	p.want(false, map[decide.Role]int{decide.Both: 4}, "both 4 (has 2): 3.00 busy")
}

func TestNothingIsDecidedBeforeDemandIsKnown(t *testing.T) {
	p := newPool(t, split(3, 4))
	p.decide("")
	p.want(true, split(3, 4), "demand is known for 0 s only")
	p.run(10*time.Second, 9000, 900)
	p.want(true, split(3, 4), "demand is known for 10 s only")
	p.run(5*time.Second, 9000, 900)
	p.want(false, split(10, 10))
}

func TestMissingIsNeverZero(t *testing.T) {
	p := newPool(t, split(1, 1))
	p.run(2*time.Minute, 4500, 250)
	for range 400 { // well beyond the hold
		p.now = p.now.Add(5 * time.Second)
		p.decide("1 of 2 routers has not reported")
		p.want(true, split(5, 3), "hold: 1 of 2 routers has not reported")
		if p.last.Uncached != 0 || p.last.Output != 0 {
			t.Fatalf("a held decision knows no demand: %+v", p.last)
		}
	}
	// What came meanwhile is seen as soon as it is known again; the first sample alone says nothing.
	p.decide("")
	p.want(true, split(5, 3))
	p.run(20*time.Second, 100, 10)
	p.want(false, split(1, 1))
}

func TestUpAtOnceDownAfterTheHold(t *testing.T) {
	p := newPool(t, split(1, 1))
	p.run(5*time.Minute, 500, 50)
	p.want(false, split(1, 1))
	p.run(time.Minute, 8500, 50)
	p.want(false, split(10, 1))
	p.run(4*time.Minute, 500, 50)
	p.want(false, split(10, 1), "needed 240 s ago")
	p.run(2*time.Minute, 500, 50)
	p.want(false, split(1, 1))
}

func TestIdleKeepsOneReplica(t *testing.T) {
	p := newPool(t, split(2, 2))
	p.run(10*time.Minute, 0, 0)
	p.want(false, split(1, 1))
}

func TestTotalsThatFallBeginTheWindowAnew(t *testing.T) {
	p := newPool(t, split(1, 1))
	p.run(time.Minute, 1500, 50)
	p.want(false, split(2, 1))
	p.uncached, p.output = 0, 0
	p.now = p.now.Add(5 * time.Second)
	p.decide("")
	p.want(true, split(2, 1), "demand is known for 0 s only")
	p.run(time.Minute, 1500, 50)
	p.want(false, split(2, 1))
}

func TestAClockThatStandsStillIsHeld(t *testing.T) {
	p := newPool(t, split(1, 1))
	p.run(time.Minute, 1500, 50)
	p.decide("")
	p.want(true, split(2, 1))
}

func TestRatesAreLearnedWhileRequestsQueue(t *testing.T) {
	p := newPool(t, split(4, 10))
	p.run(10*time.Minute, 2000, 100)
	p.want(false, split(3, 2))
	// Two replicas' worth queues at four: a replica does 500, not 1000, so twice as many are needed.
	p.queued = 3
	p.run(10*time.Minute, 2000, 100)
	p.want(false, split(5, 2))
	p.run(time.Hour, 0.1, 0.1)
	p.queued = 0
	p.run(10*time.Minute, 1000, 100)
	if got := p.last.Desired[decide.Prefill]; got > 5 {
		t.Fatalf("a rate fell below a quarter of the initial one: %d replicas for 1000 tokens/s", got)
	}
}

func TestTheStateIsBounded(t *testing.T) {
	p := newPool(t, split(1, 1))
	p.run(time.Hour, 100, 10)
	for range 2 {
		v := reflect.ValueOf(p.state)
		if samples, needs := v.FieldByName("samples").Len(), v.FieldByName("needs").Len(); samples > 13 || needs > 61 {
			t.Fatalf("keeps %d samples and %d needs", samples, needs)
		}
		p.run(time.Hour, 100, 10)
	}
}
