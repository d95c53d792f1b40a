package realtime

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// pile is four equal requests at once and one that repeats the first prompt later, on engines where a prefill takes 1.5 s.
func pile() (workload.Trace, enginesim.Profile) {
	var t workload.Trace
	for i := range 5 {
		r := workload.Request{Input: 1600, Output: 2, Blocks: []uint64{uint64(4 * i), uint64(4*i + 1), uint64(4*i + 2), uint64(4*i + 3)}}
		t.Requests = append(t.Requests, r)
	}
	t.Requests[4].At, t.Requests[4].Blocks = time.Minute, t.Requests[0].Blocks
	return t, enginesim.Profile{Name: "slow", Base: 10, Prefill: .93, KVTokens: 100_000}
}

func answered(engines ...string) *run.Result {
	r := &run.Result{}
	for i, e := range engines {
		r.Outcomes = append(r.Outcomes, run.Outcome{Request: i, Engine: e, First: time.Duration(1+i) * time.Second, Last: time.Hour, Output: 2})
	}
	return r
}

// What engines make of placements in virtual time is told, not what a slow client saw.
func TestJudgeServesPlacementsInVirtualTime(t *testing.T) {
	trace, p := pile()
	seats := map[string]int{"a": 0, "b": 1, "c": 2, "d": 3}
	spread, err := Judge(trace, answered("a", "b", "c", "d", "a"), seats, p)
	if err != nil {
		t.Fatal(err)
	}
	heaped, err := Judge(trace, answered("d", "d", "d", "d", "a"), seats, p)
	if err != nil {
		t.Fatal(err)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-6 }
	if !near(spread.Goodput, 1) || !near(spread.Measured, 3) || !near(spread.HitRatio, 1584./8000) || spread.PerEngine[0] != 2 {
		t.Errorf("spread: %+v", spread)
	}
	if want := (4*1.498 + .010 + 16*.00093) / 5; !near(spread.TTFTMean, want) {
		t.Errorf("spread: mean TTFT %v, want %v", spread.TTFTMean, want)
	}
	if heaped.Goodput > .5 || heaped.TTFTMean < 2*spread.TTFTMean || heaped.HitRatio != 0 || heaped.PerEngine[3] != 4 || !near(heaped.Measured, 3) {
		t.Errorf("heaped: %+v", heaped)
	}
}

func TestJudgeWantsAnAnswerToEachRequest(t *testing.T) {
	trace, p := pile()
	seats := map[string]int{"a": 0}
	cut := answered("a", "a", "a", "a", "a")
	cut.Outcomes[3].Err = run.ErrStream
	for name, r := range map[string]*run.Result{
		"cut off": cut, "unknown engine": answered("a", "a", "b", "a", "a"), "no engine": answered("a", "a", "", "a", "a"),
	} {
		if _, err := Judge(trace, r, seats, p); !errors.Is(err, ErrUnplaced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Judge(trace, cut, seats, p); !errors.Is(err, run.ErrStream) {
		t.Errorf("cause is not told: %v", err)
	}
	if _, err := Judge(trace, answered("a"), seats, p); err == nil {
		t.Error("requests are missing, and no error")
	}
}

// Several routers are compared with one in pairs, trial by trial, not in sums.
func TestRoutersAreComparedInPairs(t *testing.T) {
	var r Routers
	r.Routers = 2
	q := func(goodput, ttft float64) Quality {
		return Quality{Goodput: goodput, TTFTMean: ttft, TTFTP90: ttft, HitRatio: .5}
	}
	r.Add(Trial{One: q(.5, 1), Told: q(.51, 1.01), Deaf: q(.4, 2)})
	r.Add(Trial{One: q(1, 10), Told: q(1.02, 10.3), Deaf: q(.8, 20)})
	for name, c := range map[string]struct{ got, want float64 }{
		"told goodput": {r.Told["goodput"].Mean, .02}, "told TTFT": {r.Told["ttft_mean"].Mean, .02}, "told hits": {r.Told["hit_ratio"].Mean, 0},
		"deaf goodput": {r.Deaf["goodput"].Mean, -.2}, "deaf TTFT": {r.Deaf["ttft_p90"].Mean, 1},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	busy := Trial{One: q(1, 1), Told: q(.1, 10), Deaf: q(.1, 10)}
	busy.Told.Measured = 15
	if r.Add(busy); len(r.Trials) != 2 || r.TooBusy != 1 || r.Told["goodput"].Mean < 0 {
		t.Errorf("a trial that the machine did not keep up with counts: %+v", r)
	}
	if ci := r.Told["ttft_mean"].CI95; !(ci[0] < .01 && ci[1] > .03) { // two trials that are .02 apart say little
		t.Errorf("interval %v", ci)
	}
	var out bytes.Buffer
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 deaf", "+100.0 %", "-20.0 %", "+2.0 %", "2 trials", "1 more left out"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
