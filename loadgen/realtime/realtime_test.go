package realtime

import (
	"context"
	"errors"
	"math"
	"reflect"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/run"
	"github.com/warmpath/warmpath/loadgen/sim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

const ms = time.Millisecond

// measured is a run of four requests on two engines: the second is cut off, the last one the simulator refused.
func measured(t *testing.T) *Measured {
	t.Helper()
	m := &Measured{
		Gate: NewGate(4), Seats: map[string]int{"a": 1, "b": 0}, Steps: []float64{.001, .003},
		Stages: map[string]float64{"score": .002}, Took: Process{Cores: .5},
		Result: &run.Result{Start: time.Now().Add(-time.Hour), Outcomes: []run.Outcome{
			{Request: 0, Intended: 1000 * ms, Sent: 1001 * ms, First: 1113 * ms, Last: 1313 * ms, Prompt: 100, Cached: 48, Output: 11, Engine: "b"},
			{Request: 1, Intended: 1500 * ms, Sent: 1500 * ms, Err: errors.New("cut off")},
			{Request: 2, Intended: 2000 * ms, Sent: 2000 * ms, First: 2206 * ms, Last: 2206 * ms, Prompt: 70_000, Cached: 32, Output: 1, Engine: "a"},
			{Request: 3, Intended: 2000 * ms, Sent: 2000 * ms, First: 2206 * ms, Last: 2206 * ms, Prompt: 300, Cached: -1, Output: 1, Engine: "a"},
		}},
	}
	for i, after := range map[int]time.Duration{0: 1005 * ms, 2: 2006 * ms} {
		m.Gate.calls[i].reached = m.Result.Start.Add(after)
	}
	return m
}

func TestCompare(t *testing.T) {
	virtual := []sim.Answer{
		{Request: 0, Engine: 0, Prompt: 100, Hit: 48, Output: 11, TTFT: 108 * ms, TPOT: 20 * ms},
		{Request: 1, Engine: 1, Prompt: 200, Output: 3, TTFT: time.Hour, TPOT: time.Hour},
		{Request: 2, Engine: 0, Prompt: 70_000, Hit: 16, Output: 1, TTFT: 205 * ms},
		{Request: 3, Engine: 1, Prompt: 300, Refused: true},
	}
	r := Compare(virtual, measured(t), 2, 5*ms)
	want := Report{
		Requests: 2, Agree: true,
		Virtual: Side{
			TTFTMean: .1565, TTFTP50: .108, TTFTP90: .205, TPOTMean: .02, TPOTP50: .02, TPOTP90: .02,
			HitRatio: 64. / 70_100, HitTokens: 64, PerEngine: []int{2, 0}, Failed: 1,
		},
		Real: Side{
			TTFTMean: .1595, TTFTP50: .113, TTFTP90: .206, TPOTMean: .02, TPOTP50: .02, TPOTP90: .02,
			HitRatio: 80. / 70_100, HitTokens: 80, PerEngine: []int{1, 1}, Failed: 1,
		},
		TTFTRatio: .1595 / .1565, TPOTRatio: 1,
		Explained: Explained{
			FrontEnd: 5, SameEngine: 1, SameHit: 1,
			TTFT: Spread{3, 1, 1, 5, 5, 5}, Late: Spread{.5, 0, 0, 1, 1, 1}, Path: Spread{5, 4, 4, 6, 6, 6}, ByPrompt: []Path{{4096, 1, 4}, {16_384, 0, 0}, {65_536, 0, 0}, {0, 1, 6}}, Rest: Spread{2.5, 0, 0, 5, 5, 5},
			Steps: Spread{2, 1, 1, 3, 3, 3}, Stages: Stages{Score: 2}, Process: Process{Cores: .5},
		},
	}
	if !near(reflect.ValueOf(r), reflect.ValueOf(want)) {
		t.Errorf("report\n%+v, want\n%+v", r, want)
	}
	e := r.Explained
	if sum := e.Late.Mean + e.Path.Mean + e.Rest.Mean - e.FrontEnd; math.Abs(sum-e.TTFT.Mean) > 1e-9 {
		t.Errorf("the parts add up to %v ms of %v", sum, e.TTFT.Mean)
	}
}

// near compares two values whose floats differ by rounding only.
func near(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Float64:
		return math.Abs(a.Float()-b.Float()) < 1e-9
	case reflect.Struct:
		for i := range a.NumField() {
			if !near(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	if a.Kind() == reflect.Slice && a.Len() == b.Len() {
		for i := range a.Len() {
			if !near(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func TestAgreementIsWithinTolerance(t *testing.T) {
	for name, c := range map[string]struct {
		ttft, last time.Duration
		agree      bool
	}{
		"equal":           {100 * ms, 1000 * ms, true},
		"just within":     {102*ms - 1, 1020*ms - 10, true},
		"TTFT too long":   {103 * ms, 1000 * ms, false},
		"TTFT too short":  {97 * ms, 1000 * ms, false},
		"TPOT too long":   {100 * ms, 1030 * ms, false},
		"nothing to show": {0, 0, false},
	} {
		m := &Measured{Gate: NewGate(1), Result: &run.Result{Outcomes: []run.Outcome{{First: c.ttft, Last: c.ttft + c.last, Output: 11}}}}
		if c.ttft == 0 {
			m.Result.Outcomes = nil
		}
		r := Compare([]sim.Answer{{Output: 11, TTFT: 100 * ms, TPOT: 100 * ms}}, m, 1, 0)
		if r.Agree != c.agree {
			t.Errorf("%s: agree is %v with ratios %v and %v", name, r.Agree, r.TTFTRatio, r.TPOTRatio)
		}
	}
}

// Virtual time takes requests in the trace's order, engines in turn, and adds the front end to each TTFT.
func TestVirtualIsRoundRobinInOrder(t *testing.T) {
	trace := workload.Trace{Requests: []workload.Request{
		{Input: 600, Output: 4, Blocks: []uint64{1, 2}}, {Input: 30, Output: 2, Blocks: []uint64{3}},
		{Input: 600, Output: 4, Blocks: []uint64{1, 2}}, {Input: 700, Output: 1, Blocks: []uint64{1, 4}},
		{At: time.Minute, Input: 600, Output: 4, Blocks: []uint64{1, 2}},
	}}
	p := enginesim.Profile{Name: "even", Base: 10, Prefill: .1, KVTokens: 10_000}
	got, err := Virtual(trace, 2, p, 7*ms)
	if err != nil {
		t.Fatal(err)
	}
	want := []sim.Answer{ // request 2 waits for the first step of request 0; request 4 finds all but its last token's block
		{Request: 0, Engine: 0, Prompt: 600, Output: 4, TTFT: 77 * ms},
		{Request: 1, Engine: 1, Prompt: 30, Output: 2, TTFT: 20 * ms},
		{Request: 2, Engine: 0, Prompt: 600, Hit: 592, Promised: 592, Output: 4, TTFT: 7*ms + 70*ms + 10800*time.Microsecond},
		{Request: 3, Engine: 1, Prompt: 700, Output: 1, TTFT: 7*ms + 13*ms + 80*ms},
		{Request: 4, Engine: 0, Prompt: 600, Hit: 592, Promised: 592, Output: 4, TTFT: 17800 * time.Microsecond},
	}
	for i := range want {
		got[i].TPOT = 0
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("answers\n%+v, want\n%+v", got, want)
	}
}

func TestSeatsAreInOrderOfIDs(t *testing.T) {
	seats, err := Seats(map[string]string{"a": "http://127.0.0.1:9000", "b": "http://127.0.0.1:10000", "c": "http://127.0.0.1:8000"})
	if err != nil || !reflect.DeepEqual(seats, map[string]int{"b": 0, "c": 1, "a": 2}) {
		t.Errorf("seats %v, %v", seats, err)
	}
	if a, b := fleet.EngineIDFromURL("127.0.0.1", 10000, 0), fleet.EngineIDFromURL("127.0.0.1", 8000, 0); a >= b {
		t.Errorf("ids %s and %s", a, b)
	}
	for _, bad := range []string{"http://host", "::"} {
		if _, err := Seats(map[string]string{"a": bad}); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestGate(t *testing.T) {
	g := NewGate(3)
	for _, foreign := range []string{"", "0", "realtime-", "realtime-3", "realtime--1", "other-1"} {
		g.Submitted(foreign)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 3 {
		if g.Wait(over, n); !g.Reached(n).IsZero() {
			t.Errorf("request %d came to an engine", n)
		}
	}
	before := time.Now()
	go g.Submitted(g.ID(1))
	g.Wait(t.Context(), 1)
	first := g.Reached(1)
	if first.Before(before) || first.After(time.Now()) {
		t.Errorf("reached at %s", first)
	}
	g.Submitted(g.ID(1)) // another attempt
	g.Ended(1)
	if g.Reached(1) != first {
		t.Error("a later attempt counts")
	}
	go g.Ended(2)
	g.Wait(t.Context(), 2)
	if !g.Reached(2).IsZero() {
		t.Error("a request that failed came to an engine")
	}
}

func TestProcess(t *testing.T) {
	took := Watch()
	until := time.Now().Add(50 * ms)
	for time.Now().Before(until) {
		_ = make([]byte, 1<<10)
	}
	if p := took(); p.Cores <= 0 || p.OtherCores < 0 || p.GCCores < 0 || p.GCCores > p.Cores+.01 {
		t.Errorf("%+v", p)
	}
	h := func(counts ...uint64) *metrics.Float64Histogram {
		return &metrics.Float64Histogram{Counts: counts, Buckets: []float64{math.Inf(-1), 1, 2, math.Inf(1)}}
	}
	for q, want := range map[float64]float64{.25: 1, .5: 2, .75: 2, 1: 2} {
		if got := atMost(h(5, 5, 0), h(6, 7, 1), q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := atMost(h(1, 1, 1), h(1, 1, 1), .5); got != 0 {
		t.Errorf("quantile of nothing is %v", got)
	}
}
