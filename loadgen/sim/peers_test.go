package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// TestTwoRoutersServeLikeOne simulates a short conversation trace with one router, with two and with two that do not
// hear each other. docs/performance.md has the figures of a whole hour.
func TestTwoRoutersServeLikeOne(t *testing.T) {
	trace := workload.Generate(2*time.Minute, 1)
	w := FromTrace(trace.Jitter(3*time.Second, 1), 1)
	serve := func(routers int, peers time.Duration) Metrics {
		r, f := run(t, Options{Pods: 6, Policy: "warm", Seed: 1, Routers: routers, Peers: peers}, w)
		for i, router := range f.routers {
			for id, load := range router.pool.Loads() {
				if load.Active != 0 {
					t.Errorf("router %d of %d: %s ends with %+v", i, routers, id, load)
				}
			}
			if n := len(router.pool.Together()); n != 6 {
				t.Errorf("router %d knows %d engines", i, n)
			}
		}
		return r.Metrics
	}
	one, two, deaf := serve(1, 0), serve(2, 0), serve(2, -1)
	t.Logf("goodput %.4f, %.4f, %.4f; TTFT p90 %.3f, %.3f, %.3f s", one.Goodput, two.Goodput, deaf.Goodput, one.TTFTP90, two.TTFTP90, deaf.TTFTP90)
	if two.Goodput < .98*one.Goodput {
		t.Errorf("two routers: goodput %.4f, one %.4f", two.Goodput, one.Goodput)
	}
	if deaf.Goodput > .98*one.Goodput {
		t.Errorf("two that do not hear each other: goodput %.4f, one %.4f: this test sees nothing", deaf.Goodput, one.Goodput)
	}
	if again := serve(2, 0); fmt.Sprint(again) != fmt.Sprint(two) {
		t.Errorf("not reproducible: %+v and %+v", two, again)
	}
}
