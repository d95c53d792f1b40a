package decide_test

import (
	"slices"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// The table of docs/operations.md: what a missing source allows while demand grows threefold, and while it is gone.
func TestFreshness(t *testing.T) {
	silent := func(d time.Duration) func(*pool, *decide.Observation) {
		return func(p *pool, o *decide.Observation) { o.Routers.Heard = p.now.Add(-d) }
	}
	scrapes := func(n int, busy float64) func(*pool, *decide.Observation) {
		return func(_ *pool, o *decide.Observation) {
			for i := range o.Engines {
				o.Engines[i].Scrape.Waiting, o.Engines[i].Scrape.KVUsage = busy, .5
				if i < n {
					o.Engines[i].Scrape = decide.Scrape{}
				}
			}
		}
	}
	cluster := func(d time.Duration) func(*pool, *decide.Observation) {
		return func(p *pool, o *decide.Observation) {
			for role, r := range o.Replicas {
				r.Read = p.now.Add(-d)
				o.Replicas[role] = r
			}
		}
	}
	both := func(all ...func(*pool, *decide.Observation)) func(*pool, *decide.Observation) {
		return func(p *pool, o *decide.Observation) {
			for _, do := range all {
				do(p, o)
			}
		}
	}
	for _, x := range []struct {
		name     string
		away     func(*pool, *decide.Observation)
		up, down bool
	}{
		{"nothing is missing", silent(time.Second), true, true},
		{"routers 14 s old", silent(14 * time.Second), true, true},
		{"routers 16 s old", silent(16 * time.Second), false, false},
		{"routers 40 s old, engines idle", silent(40 * time.Second), false, false},
		{"routers 40 s old, engines queue", both(silent(40*time.Second), scrapes(0, 9)), true, false},
		{"routers 20 s old, engines queue", both(silent(20*time.Second), scrapes(0, 9)), false, false},
		{"routers and engines away", both(silent(time.Hour), scrapes(99, 0)), false, false},
		{"one of five routers away", func(_ *pool, o *decide.Observation) { o.Routers.Alive, o.Routers.Reporting = 5, 4 }, true, true},
		{"two of five routers away", func(_ *pool, o *decide.Observation) { o.Routers.Alive, o.Routers.Reporting = 5, 3 }, true, false},
		{"no router known", func(_ *pool, o *decide.Observation) { o.Routers.Alive = 0 }, false, false},
		{"one scrape missing", scrapes(1, 0), true, true},
		{"most scrapes missing", scrapes(9, 0), true, false},
		{"cluster 29 s old", cluster(29 * time.Second), true, true},
		{"cluster 31 s old", cluster(31 * time.Second), false, false},
		{"everything away", both(silent(time.Hour), scrapes(99, 0), cluster(time.Hour)), false, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := newPool(t, decide.Policy{}, split(6, 7))
			p.run(20*time.Minute, steady())
			before := p.last.Roles[decide.Prefill].Target
			quiet := *p
			p.blind = func(o *decide.Observation) { x.away(p, o) }
			for range 10 * 12 {
				p.tick(times(steady(), 3))
				if now := p.last.Roles[decide.Prefill].Target; now < before || now > before && !x.up {
					t.Fatalf("demand grows: %d replicas become %d", before, now)
				}
			}
			if now := p.last.Roles[decide.Prefill].Target; x.up && now == before {
				t.Fatal("demand grows, and nothing is ordered")
			}
			p = newPool(t, decide.Policy{}, nil)
			*p = quiet
			p.engines, p.starting = slices.Clone(quiet.engines[:0:0]), map[decide.Role][]decide.Starting{decide.Prefill: nil, decide.Decode: nil}
			for range quiet.last.Roles[decide.Prefill].Target {
				p.add(decide.Prefill)
			}
			for range quiet.last.Roles[decide.Decode].Target {
				p.add(decide.Decode)
			}
			p.blind = func(o *decide.Observation) { x.away(p, o) }
			p.run(40*time.Minute, demand{})
			if now := p.last.Roles[decide.Prefill].Target; x.down != (now < before) {
				t.Fatalf("demand is gone: %d replicas become %d, fewer wanted: %v", before, now, x.down)
			}
		})
	}
}
