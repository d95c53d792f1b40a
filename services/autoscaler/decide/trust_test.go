package decide

import (
	"testing"
	"time"
)

// A jump is followed at once, and foretells no further growth beyond a sixth; a ramp does.
func TestAJumpIsNoTrend(t *testing.T) {
	l := level{Level: 2, Set: true}
	for i := range 200 {
		l = l.next(20, 1, true)
		if i > 10 && l.ahead(24) > 23 {
			t.Fatalf("%d ticks after a jump to 20: %v ahead", i, l.ahead(24))
		}
	}
	near(t, "level", l.Level, 20, .01)
}

// What hits were lost when prefill grew is learned, and makes more work of the next growth.
func TestFewerHitsAfterGrowth(t *testing.T) {
	var s trust
	now := time.Unix(1e9, 0)
	run := func(ready int, uncached float64) {
		o := Observation{Replicas: map[Role]Replicas{Prefill: {Ready: ready}}}
		l := load{taken: true, rates: rates{seconds: tick, prompt: 1000, uncached: uncached}}
		for range 60 {
			now = now.Add(5 * time.Second)
			s.resized(&o, &l, now)
		}
	}
	run(4, 500)
	if s.growth() != 1 {
		t.Fatalf("growth %v before any", s.growth())
	}
	run(8, 700)
	if g := s.growth(); g < 1.03 || g > 1+costliest {
		t.Fatalf("growth %v where a fifth of the prompts was lost", g)
	}
}

// While the model is in doubt replicas stay that were not seen to be too many, and no more than there are.
func TestProvenFloor(t *testing.T) {
	now := time.Unix(1e9, 0)
	run := running{now: 8, ready: 8}
	fresh := track{Need: 4}
	if n := fresh.prove(4, &run, 1, .1, now); n != 8 {
		t.Errorf("%d with nothing proven, want all 8", n)
	}
	if n := fresh.prove(4, &run, 1, .9, now); n != 0 {
		t.Errorf("%d with a sure model, want no floor", n)
	}
	if n := fresh.prove(2, &run, 0, .1, now); n != 4 { // 4 on 8 was borne: .5 each
		t.Errorf("%d for 2 busy, want 4", n)
	}
	if n := fresh.prove(40, &run, 0, .1, now); n != 8 {
		t.Errorf("%d, want no more than there are", n)
	}
}

// Fewer are kept only when they were enough for minutes: down to the most that was needed meanwhile.
func TestDownToTheMostOfMinutes(t *testing.T) {
	now := time.Unix(1e9, 0)
	var s track
	run, c := running{now: 10, ready: 10}, caution{startup: 110}
	for i := range 37 {
		n := 8 + i%2
		got, why := s.down(n, &run, &c, now.Add(time.Duration(i)*5*time.Second))
		if i < 36 && (got != 10 || why == "") || i == 36 && got != 9 {
			t.Fatalf("after %d s: %d, %q", 5*i, got, why)
		}
	}
}
