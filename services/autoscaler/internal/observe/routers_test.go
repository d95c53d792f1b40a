package observe

import (
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var begin = time.Unix(1_000_000, 0)

// sums is routers with a check of the totals.
type sums struct {
	routers
	*testing.T
}

func (s *sums) hear(r Report, after time.Duration) {
	s.Helper()
	if !s.fold(r, func(string) bool { return true }, begin.Add(after)) {
		s.Fatalf("%+v is refused", r)
	}
}

func (s *sums) want(uncached, output float64) {
	s.Helper()
	if s.sum.uncached != uncached || s.sum.output != output {
		s.Fatalf("uncached %v output %v, want %v and %v", s.sum.uncached, s.sum.output, uncached, output)
	}
}

func say(router string, started int64, uncached, output uint64) Report {
	return Report{Router: router, Pool: "p", Started: started, Uncached: uncached, Output: output, Queued: 2, Held: 1, Compute: 10}
}

func TestTotalsGoOnThroughRestartsAndDeaths(t *testing.T) {
	s := sums{T: t}
	s.hear(say("a", 1, 1_000_000, 500), 0) // it has run for days
	s.want(0, 0)
	s.hear(say("a", 1, 1_000_100, 510), 0)
	s.hear(say("b", 1, 7, 7), 0)
	s.want(100, 10)
	s.hear(say("a", 50, 30, 3), 0) // restarted
	s.want(130, 13)
	s.hear(say("a", 1, 1_000_200, 520), 0) // a late word of its earlier life
	s.want(130, 13)
	s.hear(say("a", 50, 31, 3), 0)
	s.want(131, 13)
	s.hear(say("a", 50, 5, 1), 0) // counters that fall without a restart count for nothing
	s.want(131, 13)
	if o := s.observe([]string{"a", "b"}, begin); o.Queued != 4 || o.Held != 2 || o.Tokens != 20 || o.Alive != 2 || o.Reporting != 2 {
		t.Fatalf("%+v", o)
	}
	s.see([]string{"a"}, begin.Add(time.Hour))
	if len(s.known) != 1 {
		t.Fatalf("b is dead, known are %v", s.known)
	}
	s.want(131, 13)
	s.hear(say("b", 99, 1000, 1000), time.Hour) // a namesake: where it began is not known
	s.want(131, 13)
}

// Two lives that began in one second are told apart by the count of reports.
func TestRestartWithinASecond(t *testing.T) {
	s := sums{T: t}
	numbered := func(seq, uncached uint64) Report {
		r := say("a", 1, uncached, 0)
		r.Seq = seq
		return r
	}
	s.hear(numbered(8, 100), 0)
	s.hear(numbered(9, 150), 0)
	s.hear(numbered(9, 150), 0) // the same again
	s.want(50, 0)
	s.hear(numbered(1, 20), 0)
	s.want(70, 0)
	s.hear(numbered(2, 25), 0)
	s.want(75, 0)
}

func TestWhoWasHeardAndWhen(t *testing.T) {
	var s sums
	s.T = t
	o := func(after time.Duration, alive ...string) decide.Routers {
		s.see(alive, begin.Add(after))
		return s.observe(alive, begin.Add(after))
	}
	if got := o(0, "a"); !got.Heard.IsZero() || got.Alive != 1 || got.Reporting != 0 {
		t.Errorf("never heard of a: %+v", got)
	}
	s.hear(say("a", 1, 0, 0), time.Second)
	if got := o(2*time.Second, "a"); !got.Heard.Equal(begin.Add(time.Second)) || got.Reporting != 1 {
		t.Errorf("heard of a: %+v", got)
	}
	// b has just begun: that it has not reported yet says nothing; later it does.
	s.hear(say("a", 1, 0, 0), 3*time.Second)
	if got := o(3*time.Second, "a", "b"); !got.Heard.Equal(begin.Add(3*time.Second)) || got.Alive != 2 || got.Reporting != 1 {
		t.Errorf("b has just begun: %+v", got)
	}
	s.hear(say("a", 1, 0, 0), 20*time.Second)
	if got := o(20*time.Second, "a", "b"); !got.Heard.Equal(begin.Add(3*time.Second)) || got.Reporting != 1 {
		t.Errorf("b never reports: %+v", got)
	}
	// a falls silent, but lives: its last word stands, and is known to be old.
	s.hear(say("b", 1, 0, 0), 30*time.Second)
	if got := o(30*time.Second, "a", "b"); !got.Heard.Equal(begin.Add(20*time.Second)) || got.Reporting != 1 || got.Queued != 4 {
		t.Errorf("a is silent: %+v", got)
	}
	// It is gone: what it had queued is gone with it.
	if got := o(31*time.Second, "b"); !got.Heard.Equal(begin.Add(30*time.Second)) || got.Alive != 1 || got.Queued != 2 {
		t.Errorf("a is gone: %+v", got)
	}
	// All are gone: the last word grows old.
	if got := o(40 * time.Second); got.Alive != 0 || got.Reporting != 0 || got.Heard.After(begin.Add(30*time.Second)) {
		t.Errorf("nobody is alive: %+v", got)
	}
}

func on(router string, started int64, l Load) Report {
	return Report{Router: router, Pool: "p", Started: started, Engines: map[string]Load{"e": l}}
}

func TestWhatIsUnderWayIsTheSumOfRouters(t *testing.T) {
	s := sums{T: t}
	s.hear(on("a", 1, Load{Inflight: 3, Uncached: 100, Decoding: 2, Context: 1000, Gaps: 500, Seconds: 9}), 0)
	s.hear(on("b", 1, Load{Inflight: 1, Uncached: 7, Decoding: 1, Context: 10, Gaps: 5, Seconds: 1}), 0)
	s.hear(on("a", 1, Load{Inflight: 3, Uncached: 100, Decoding: 2, Context: 1000, Gaps: 600, Seconds: 11}), 0)
	s.hear(on("b", 2, Load{Inflight: 1, Uncached: 7, Decoding: 1, Context: 10, Gaps: 5, Seconds: 1}), 0) // restarted
	var e decide.Engine
	s.engine(&e, "e", []string{"a", "b"})
	want := decide.Engine{Inflight: 4, Backlog: 107, Decoding: 3, Context: 1010, Gaps: 3, Tokens: 105}
	if e.Inflight != want.Inflight || e.Backlog != want.Backlog || e.Decoding != want.Decoding || e.Context != want.Context || e.Gaps != want.Gaps || e.Tokens != want.Tokens {
		t.Errorf("got %+v, want %+v", e, want)
	}
	s.forget(func(string) bool { return false })
	if len(s.paces) != 0 {
		t.Errorf("%d engines are remembered", len(s.paces))
	}
}

// A router that has not said that it knows of a drain may still choose the engine: until then it is not without
// requests.
func TestADrainingEngineIsBusyUntilEveryRouterKnows(t *testing.T) {
	s := sums{T: t}
	inflight := func(alive ...string) int {
		e := decide.Engine{Draining: true}
		s.engine(&e, "e", alive)
		return e.Inflight
	}
	s.hear(on("a", 1, Load{}), 0)
	s.hear(on("b", 1, Load{Draining: true}), 0)
	if n := inflight("a", "b"); n != 1 {
		t.Errorf("a does not know: %d", n)
	}
	if n := inflight("a", "b", "c"); n != 2 {
		t.Errorf("a does not know, c was never heard: %d", n)
	}
	s.hear(on("a", 1, Load{Inflight: 1, Draining: true}), 0)
	if n := inflight("a", "b"); n != 1 {
		t.Errorf("a knows, and has one under way: %d", n)
	}
	s.hear(on("a", 1, Load{Draining: true}), 0)
	if n := inflight("a", "b"); n != 0 {
		t.Errorf("all know: %d", n)
	}
}

func TestRoutersAreBounded(t *testing.T) {
	s := sums{T: t}
	for i := range maxRouters {
		s.hear(say(fmt.Sprint(i), 1, 0, 0), 0)
	}
	if s.fold(say("more", 1, 0, 0), func(string) bool { return true }, begin) || len(s.known) != maxRouters {
		t.Fatalf("knows %d routers", len(s.known))
	}
	s.hear(say("5", 1, 9, 0), 0)
	s.want(9, 0)
	// Engines that the fleet does not know take no room.
	r := on("7", 1, Load{Gaps: 1, Seconds: 1})
	s.fold(r, func(string) bool { return false }, begin)
	if len(s.paces) != 0 || len(s.known["7"].Engines) != 0 {
		t.Error("an unknown engine is remembered")
	}
}

func TestReportsThatCannotBe(t *testing.T) {
	for _, data := range []string{
		``, `x`, `[]`, `{}`, `{"router":"r"}`, `{"pool":"p"}`, `{"router":"r","pool":"p","output_tokens":-1}`,
		`{"router":"r","pool":"p","output_tokens":1.5}`, `{"router":"r","pool":"p","engines":{"e":{"gap_seconds":-1}}}`,
		`{"router":"r","pool":"p","engines":{"e":{"inflight":-1}}}`, `{"router":"r","pool":"p","queued":9999999999}`,
	} {
		if r, err := ParseReport([]byte(data)); err == nil {
			t.Errorf("%s is taken for %+v", data, r)
		}
	}
}

func FuzzReportsNeverBreakTheTotals(f *testing.F) {
	f.Add([]byte(`{"router":"r","started":5,"pool":"p","arrivals":1,"uncached_tokens":2,"engines":{"e":{"gaps":3,"gap_seconds":1e11}}}`),
		[]byte(`{"router":"r","started":5,"seq":3,"pool":"p","arrivals":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var s routers
		for _, data := range [][]byte{first, second, first, second} {
			before := s.sum
			r, err := ParseReport(data)
			if err != nil {
				continue
			}
			s.fold(r, func(string) bool { return true }, begin)
			if !(s.sum.arrivals >= before.arrivals && s.sum.uncached >= before.uncached && s.sum.output >= before.output) {
				t.Errorf("%+v became %+v", before, s.sum)
			}
			for id, p := range s.paces {
				if !(p.seconds >= 0 && p.gaps >= 0) {
					t.Errorf("engine %q has %+v", id, p)
				}
			}
		}
	})
}

// One report of a router that has lost its senses must not put the totals out of reason for good.
func TestLeapsCountForNothing(t *testing.T) {
	s := sums{T: t}
	s.hear(say("a", 1, 0, 0), 0)
	s.hear(say("a", 1, 100, 10), 0)
	s.hear(say("a", 1, 1<<63, 20), 0)
	s.hear(say("a", 1, 1<<63+5, 21), 0)
	s.want(105, 11)
	s.hear(say("a", 2, 1<<62, 0), 0) // nor of one that has restarted
	s.want(105, 11)
	s.hear(on("a", 2, Load{Gaps: 1 << 62, Seconds: 1}), 0)
	s.hear(on("a", 2, Load{Gaps: 1<<62 + 3, Seconds: 2}), 0)
	if p := s.paces["e"]; p.gaps != 3 {
		t.Errorf("gaps %+v", p)
	}
	for i := range uint64(300) {
		s.hear(say("b", 1, i*999_999_999_999, 0), 0)
		if s.sum.uncached > turn {
			t.Fatalf("after %d reports the total is %v", i, s.sum.uncached)
		}
	}
}
