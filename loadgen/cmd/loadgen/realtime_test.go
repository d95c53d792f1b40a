package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// dialogue is three seconds of requests, some at one instant, whose prompts go on from earlier ones.
func dialogue() workload.Trace {
	t := workload.Trace{Name: "dialogue"}
	for i := range 30 {
		blocks := []uint64{0, uint64(1 + i%7)}
		for turn := range i / 7 {
			blocks = append(blocks, uint64(100+10*(i%7)+turn))
		}
		t.Requests = append(t.Requests, workload.Request{
			At: time.Duration(i/3) * 300 * time.Millisecond, Input: 512*len(blocks) - 30*(i%5), Output: 5 + i%4, Blocks: blocks,
		})
	}
	return t
}

func smallCheck() *realtimeCheck {
	return &realtimeCheck{engines: 3, profile: enginesim.Profile{Name: "small", Base: 4, Prefill: .004, KVTokens: 200_000}, trace: traceOptions{seconds: 3}}
}

// The same requests go to the same engines and find the same in their caches, in real time and in virtual time. What
// each takes is left to quiet machines: here it is only checked that it was measured.
func TestRealTimeServesWhatVirtualTimeDoes(t *testing.T) {
	trace := dialogue()
	r, err := smallCheck().compare(t.Context(), trace, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	all, e := len(trace.Requests), r.Explained
	if r.Requests != all || r.Real.Failed != 0 || r.Virtual.Failed != 0 || e.SameEngine != all || e.SameHit != all {
		t.Errorf("%d requests: %+v", all, r)
	}
	if !slices.Equal(r.Real.PerEngine, []int{10, 10, 10}) || !slices.Equal(r.Virtual.PerEngine, r.Real.PerEngine) {
		t.Errorf("requests per engine: real %v, virtual %v", r.Real.PerEngine, r.Virtual.PerEngine)
	}
	if r.Real.HitTokens != r.Virtual.HitTokens || r.Real.HitTokens == 0 || r.Real.HitRatio != r.Virtual.HitRatio {
		t.Errorf("hits: real %+v, virtual %+v", r.Real, r.Virtual)
	}
	for name, v := range map[string]float64{
		"TTFT": r.Real.TTFTP50, "TPOT": r.Real.TPOTP50, "front end": e.FrontEnd, "late": e.Late.Mean, "path": e.Path.P10, "steps": e.Steps.Mean,
		"read": e.Stages.Read, "score": e.Stages.Score, "pick": e.Stages.Pick, "cores": e.Process.Cores,
	} {
		if v <= 0 {
			t.Errorf("%s is %v: not measured", name, v)
		}
	}
	checkShape(t, r)
}

func checkShape(t *testing.T, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"trace", "seconds", "requests", "virtual", "real", "ttft_ratio", "tpot_ratio", "agree", "explained"} {
		if top[field] == nil {
			t.Errorf("no %s in %s", field, text)
		}
	}
	for _, side := range []string{"virtual", "real"} {
		var s map[string]any
		if err := json.Unmarshal(top[side], &s); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "tpot_mean_s", "tpot_p50_s", "tpot_p90_s", "hit_ratio", "per_engine"} {
			if s[field] == nil {
				t.Errorf("no %s in %s", field, top[side])
			}
		}
	}
}

// stopAfter cancels once so many decisions are logged.
type stopAfter struct {
	decisions int
	stop      context.CancelFunc
}

func (s *stopAfter) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("Got pod scores")) {
		if s.decisions--; s.decisions == 0 {
			s.stop()
		}
	}
	return len(p), nil
}

// Ctrl-C in the middle compares what was answered until then.
func TestRealTimeComparesWhatThereIsWhenItIsStopped(t *testing.T) {
	trace := dialogue()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := opening + len(trace.Requests) + 20
	r, err := smallCheck().compare(ctx, trace, &stopAfter{sent, stop})
	if !errors.Is(err, context.Canceled) || r == nil {
		t.Fatalf("report %+v, %v", r, err)
	}
	if all := r.Requests + r.Real.Failed; all < 15 || all > 22 || r.Requests == 0 || r.Explained.SameEngine != r.Requests {
		t.Errorf("of %d requests that were sent: %+v", 20, r)
	}
}
