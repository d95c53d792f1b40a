package autoscaler

import (
	"fmt"
	"testing"
	"time"
)

var begin = time.Unix(1000, 0)

func (s *routers) want(t *testing.T, uncached, output float64) {
	t.Helper()
	if s.uncached != uncached || s.output != output {
		t.Fatalf("uncached %v output %v, want %v and %v", s.uncached, s.output, uncached, output)
	}
}

func say(router string, started int64, uncached, output uint64) report {
	return report{Router: router, Pool: "p", Started: started, Uncached: uncached, Output: output, Queued: 2}
}

func TestTotalsGoOnThroughRestartsAndDeaths(t *testing.T) {
	var s routers
	s.fold(say("a", 1, 1_000_000, 500), begin) // it has run for days
	s.want(t, 0, 0)
	s.fold(say("a", 1, 1_000_100, 510), begin)
	s.fold(say("b", 1, 7, 7), begin)
	s.want(t, 100, 10)
	s.fold(say("a", 50, 30, 3), begin) // restarted
	s.want(t, 130, 13)
	s.fold(say("a", 1, 1_000_200, 520), begin) // a late word of its earlier life
	s.want(t, 130, 13)
	s.fold(say("a", 50, 31, 3), begin)
	s.want(t, 131, 13)
	s.fold(say("a", 50, 5, 1), begin) // counters that fall without a restart count for nothing
	s.want(t, 131, 13)
	if s.queued() != 4 {
		t.Fatalf("%v queued", s.queued())
	}
	if why := s.blind([]string{"a"}, begin.Add(time.Hour)); why != "1 of 1 routers have not reported" {
		t.Fatal(why)
	}
	if len(s.known) != 1 {
		t.Fatalf("b is dead, known are %v", s.known)
	}
	s.want(t, 131, 13)
	s.fold(say("b", 99, 1000, 1000), begin) // a namesake: where it began is not known
	s.want(t, 131, 13)
}

func TestBlind(t *testing.T) {
	var s routers
	s.fold(say("a", 1, 0, 0), begin)
	cases := []struct {
		alive []string
		after time.Duration
		want  string
	}{
		{nil, 0, "no router is known"},
		{[]string{"a"}, staleAfter, ""},
		{[]string{"a", "b"}, 0, "1 of 2 routers have not reported"},
		{[]string{"a"}, staleAfter + 1, "1 of 1 routers have not reported"},
	}
	for _, c := range cases {
		if got := s.blind(c.alive, begin.Add(c.after)); got != c.want {
			t.Errorf("%v after %v: %q, want %q", c.alive, c.after, got, c.want)
		}
	}
}

func TestRoutersAreBounded(t *testing.T) {
	var s routers
	for i := range maxRouters {
		if !s.fold(say(fmt.Sprint(i), 1, 0, 0), begin) {
			t.Fatalf("router %d is refused", i)
		}
	}
	if s.fold(say("more", 1, 0, 0), begin) || len(s.known) != maxRouters {
		t.Fatalf("knows %d routers", len(s.known))
	}
	if !s.fold(say("5", 1, 9, 0), begin) || s.uncached != 9 {
		t.Fatal("a known router is not heard any more")
	}
}

func TestReportsThatCannotBe(t *testing.T) {
	for _, data := range []string{
		``, `x`, `[]`, `{}`, `{"router":"r"}`, `{"pool":"p"}`, `{"router":"r","pool":"p","output_tokens":-1}`,
		`{"router":"r","pool":"p","output_tokens":1.5}`,
	} {
		if r, err := parse([]byte(data)); err == nil {
			t.Errorf("%s is taken for %+v", data, r)
		}
	}
	got, err := parse([]byte(`{"router":"r","started":5,"pool":"p","arrivals":1,"uncached_tokens":2,"output_tokens":3,"queued":4,"engines":{"e":{}}}`))
	if want := (report{Router: "r", Started: 5, Pool: "p", Uncached: 2, Output: 3, Queued: 4}); err != nil || got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
}
