package scalers

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// crowd is a view of n engines of a role, each as e says, with so many ordered.
func crowd(role decide.Role, n, ordered int, e decide.Engine) *view {
	v := &view{role: role, routers: new(decide.Routers), current: ordered}
	for i := range n {
		e.ID, e.Role, e.Serving = string(rune('a'+i)), role, true
		v.engines = append(v.engines, e)
	}
	return v
}

// V_P of the reference engine is 8192/(.015 + .512) = 15,545 tokens/s.
func TestTokenCountsWorkInSeconds(t *testing.T) {
	if v := chunkRate(filledModel(decide.Model{})); int(v) != 15_544 {
		t.Fatalf("V_P = %v", v)
	}
	for _, c := range []struct {
		backlog, queued, want int
	}{
		{0, 0, 1},
		{11_658, 0, 2},      // 4 x 11,658 = 3.0 s of 1.5
		{11_658, 35_000, 4}, // and 2.25 s at the router
		{100_000, 0, 18},    // 25.7 s
		{46_600, 0, 8},      // 12 s
		{1_000_000, 0, 40},  // bounded
	} {
		v := crowd(decide.Prefill, 4, 1, decide.Engine{Backlog: c.backlog})
		v.routers.Tokens = c.queued
		s := newToken(v, false, filled(policy()))
		s.hpa.behaviour = behaviour{}
		if n := s.want(v, begin); n != c.want {
			t.Errorf("backlog 4 x %d + %d: %d replicas, want %d", c.backlog, c.queued, n, c.want)
		}
	}
	usage := crowd(decide.Decode, 4, 1, decide.Engine{Scrape: decide.Scrape{KVUsage: .9}})
	s := newToken(usage, false, filled(policy()))
	s.hpa.behaviour = behaviour{}
	if n := s.want(usage, begin); n != 5 {
		t.Errorf("KV usage 4 x .9 over .8: %d replicas, want 5", n)
	}
}

// One more in 180 s, one less in 300 s and only after 300 s.
func TestTokenIsSlow(t *testing.T) {
	v := crowd(decide.Prefill, 1, 3, decide.Engine{Backlog: 10_000_000})
	s := newToken(v, false, filled(policy()))
	second := 0
	for ; second < 900; second += 5 {
		if n, want := s.want(v, at(second)), 4+second/180; n != want {
			t.Fatalf("%d s of overload: %d replicas, want %d", second, n, want)
		}
	}
	v.engines[0].Backlog = 0
	for ; second < 2400; second += 5 {
		want := 8
		if idle := second - 900; idle >= 285 { // the last sync of the overload was at 885 s
			want = 7 - (idle-285)/300
		}
		if n := s.want(v, at(second)); n != want {
			t.Fatalf("%d s: %d replicas, want %d", second, n, want)
		}
	}
}

// d = n + ceil(n(s c/.55 - 1)), c the share that is ready; n - floor(n(1 - s/.40)).
func TestSLOFormula(t *testing.T) {
	for _, c := range []struct {
		n, ready int
		score    float64
		want     int
	}{
		{4, 4, 1.1, 8},
		{4, 4, .56, 5},  // 4 + ceil(.07)
		{4, 2, 1.1, 4},  // half of them start: 1.1 x .5 is .55
		{4, 3, 1.1, 6},  // .825/.55 = 1.5
		{4, 4, .45, 4},  // between both
		{4, 4, .20, 2},  // 4 - floor(2)
		{4, 4, .31, 4},  // 4 - floor(.9)
		{4, 4, 0, 0},    // no traffic
		{10, 10, 2, 37}, // 10 + ceil(26.4)
	} {
		s := &slo{hpa: hpa{spec: c.n}, up: sloUp, down: sloDown}
		if n := s.wanted(c.score, c.ready); n != c.want {
			t.Errorf("%d of %d ready, score %v: %d, want %d", c.ready, c.n, c.score, n, c.want)
		}
	}
}

// A step of the score has to last 30 s, and to have passed the mean of 45 s, before anything rises.
func TestSLORisesLateAndFallsLater(t *testing.T) {
	v := crowd(decide.Decode, 4, 4, decide.Engine{})
	s := newSLO(v, false, filled(policy()))
	ended := func(itl time.Duration) {
		v.routers.Ended = []decide.Request{{ITL: itl, TTFT: time.Second}}
	}
	rose := 0
	for second := 0; second < 300; second += 5 {
		ended(15 * time.Millisecond) // .5 of the objective
		if second >= 120 {
			ended(60 * time.Millisecond)
		}
		if n := s.want(v, at(second)); n > 4 && rose == 0 {
			rose = second
		}
	}
	if rose < 150 || rose > 210 {
		t.Errorf("it rose at %d s, want 30 to 90 s after the load at 120 s", rose)
	}
	top, topped := 0, 0
	for second := 300; second < 1200; second += 5 {
		ended(3 * time.Millisecond)
		n := s.want(v, at(second))
		if n > top {
			top, topped = n, second
		}
		if n < top && second < topped+180 {
			t.Fatalf("it fell at %d s, and rose at %d s", second, topped)
		}
	}
	if fell := top - s.hpa.spec; fell < 3 || fell > 6 || topped > 420 {
		t.Errorf("it rose until %d s and fell by %d, want one in 120 s after the first 180 s", topped, fell)
	}
}
