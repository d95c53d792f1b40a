package decide_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// BenchmarkDecide is one decision for a pool in its stride, a third of its engines for prefill.
func BenchmarkDecide(b *testing.B) {
	for _, engines := range []int{8, 80} {
		b.Run(fmt.Sprintf("engines=%d", engines), func(b *testing.B) {
			o := decide.Observation{
				Routers:  decide.Routers{Heard: start, Alive: 2, Reporting: 2},
				Replicas: map[decide.Role]decide.Replicas{},
			}
			for i := range engines {
				e := decide.Engine{ID: fmt.Sprintf("model-%d-0123456789", i), Role: decide.Decode, Serving: true}
				if i%3 == 0 {
					e.Role = decide.Prefill
				} else {
					e.Inflight, e.Decoding, e.Context = 40, 40, 80_000
				}
				r := o.Replicas[e.Role]
				r.Desired, r.Ready = r.Desired+1, r.Ready+1
				o.Replicas[e.Role] = r
				o.Engines = append(o.Engines, e)
			}
			rate := float64(engines) * 2
			for range min(int(5*rate), 512) {
				o.Routers.Ended = append(o.Routers.Ended, decide.Request{
					Prompt: 4000, Uncached: 2000, Output: 300, Prefill: 140 * time.Millisecond, TTFT: 200 * time.Millisecond,
					ITL: 20 * time.Millisecond,
				})
			}
			s := decide.State{Policy: decide.Policy{Mode: decide.On}}
			now := start
			tick := func() {
				now = now.Add(5 * time.Second)
				r := &o.Routers
				r.Heard, r.Arrivals, r.Prompt, r.Uncached = now, r.Arrivals+5*rate, r.Prompt+20_000*rate, r.Uncached+10_000*rate
				r.Finished, r.Output = r.Finished+5*rate, r.Output+1500*rate
				for i := range o.Engines {
					e := &o.Engines[i]
					e.Gaps, e.Tokens, e.Scrape.At = e.Gaps+200, e.Tokens+10_000, now
				}
				for role, x := range o.Replicas {
					x.Read = now
					o.Replicas[role] = x
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				tick()
				s, _ = s.Decide(o, now)
			}
		})
	}
}
