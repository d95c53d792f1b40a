package scalers

import (
	"testing"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// 60 requests/s of 1,600 and 200 tokens keep 60 x .115 = 6.9 prefill replicas busy, and 3.5 of decode at the objective.
// Whoever knows what a replica bears finds a count and keeps it; who follows a queue swings for ever, as is known of it.
func TestSteadyLoad(t *testing.T) {
	for _, c := range []struct {
		name, variant string
		prefill       [2]int // least and most of the last half hour
		decode        [2]int
	}{
		{"hpa-waiting", "default", [2]int{1, 40}, [2]int{1, 40}},
		{"llmd-token", "default", [2]int{5, 10}, [2]int{2, 5}},
		{"wva-v2", "default", [2]int{1, 40}, [2]int{1, 40}},
		{"dynamo", "default", [2]int{7, 8}, [2]int{4, 5}},
		{"dynamo", "tuned", [2]int{9, 10}, [2]int{4, 6}},
		{"fixed-ratio", "default", [2]int{7, 14}, [2]int{4, 6}},
		{"fixed-ratio", "tuned", [2]int{7, 16}, [2]int{4, 8}},
	} {
		t.Run(c.name+"/"+c.variant, func(t *testing.T) {
			s, err := New(c.name, c.variant, Setup{Policy: policy()})
			if err != nil {
				t.Fatal(err)
			}
			fleet := newToy(1600, 200, 2)
			fleet.run(s, 0, 5400, constant(60))
			before := fleet.o.Routers
			last := fleet.run(s, 5400, 7200, constant(60))
			if share := (fleet.o.Routers.Finished - before.Finished) / (fleet.o.Routers.Arrivals - before.Arrivals); share < .9 {
				t.Errorf("it serves %.3f of what arrives", share)
			}
			within(t, last, decide.Prefill, c.prefill)
			within(t, last, decide.Decode, c.decode)
		})
	}
}

func constant(perSecond float64) func(int) float64 { return func(int) float64 { return perSecond } }

func within(t *testing.T, ordered []map[decide.Role]int, role decide.Role, bounds [2]int) {
	t.Helper()
	for i, o := range ordered {
		if o[role] < bounds[0] || o[role] > bounds[1] {
			t.Fatalf("%s at step %d: %d replicas, not within %v", role, i, o[role], bounds)
		}
	}
}
