package decide_test

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func split(prefill, decoders int) map[decide.Role]int {
	return map[decide.Role]int{decide.Prefill: prefill, decide.Decode: decoders}
}

// steady is 3.5 busy prefill replicas and about as many of decode.
func steady() demand { return demand{rate: 25, prompt: 4000, uncached: 2000, output: 300} }

func TestDemandBecomesReplicas(t *testing.T) {
	p := newPool(t, decide.Policy{}, split(2, 2))
	p.run(10*time.Minute, steady())
	// w = 25 x (.015 + 2000/16000) = 3.5; at 1.1 it is 3.85, and five prefill in time what four cannot.
	p.target(decide.Prefill, 5, 6)
	// N* = (27.9 - 14)/(.05 + .056 x 4.15) = 49.2; 25 x 300 x .0279/49.2 = 4.25; x 1.1 and its variation: 5.1.
	p.target(decide.Decode, 5, 6)
	if len(p.orders) > 5 {
		t.Fatalf("orders %+v", p.orders)
	}
}

// A source that falls silent changes nothing, however long, and what was needed before counts when it is back.
func TestMissingIsNeverZero(t *testing.T) {
	sources := map[string]func(*decide.Observation){
		"routers": func(o *decide.Observation) { o.Routers = decide.Routers{Alive: 2} },
		"a router": func(o *decide.Observation) {
			o.Routers = decide.Routers{Heard: start, Alive: 2, Reporting: 1, Arrivals: o.Routers.Arrivals}
		},
		"most routers": func(o *decide.Observation) { o.Routers.Alive, o.Routers.Reporting = 5, 3 },
		"engines": func(o *decide.Observation) {
			for i := range o.Engines {
				o.Engines[i].Scrape = decide.Scrape{}
			}
		},
		"the cluster": func(o *decide.Observation) {
			for role, r := range o.Replicas {
				o.Replicas[role] = decide.Replicas{Read: start, Desired: r.Desired}
			}
		},
	}
	for name, away := range sources {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, decide.Policy{}, split(5, 6))
			p.run(10*time.Minute, steady())
			before, orders := p.last, len(p.orders)
			p.blind = away
			p.run(time.Hour, demand{})
			for role, r := range before.Roles {
				if now := p.last.Roles[role]; now.Target != r.Target {
					t.Fatalf("%s: %d replicas are held, %d were wanted", role, now.Target, r.Target)
				}
			}
			if p.last.Blind == "" || len(p.orders) != orders {
				t.Fatalf("%q, orders %+v", p.last.Blind, p.orders[orders:])
			}
			p.blind = nil
			if name == "engines" || name == "the cluster" { // what came was seen all the while
				return
			}
			p.run(2*time.Minute, demand{})
			for role, r := range before.Roles {
				if now := p.last.Roles[role]; now.Target != r.Target {
					t.Fatalf("%s: %d replicas just after it is back, %d before", role, now.Target, r.Target)
				}
			}
			p.run(time.Hour, demand{})
			p.target(decide.Prefill, 1, 1)
			p.target(decide.Decode, 1, 1)
		})
	}
}
