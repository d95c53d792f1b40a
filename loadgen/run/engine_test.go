package run

import (
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// One engine with room for everything, asked one request after the other, has cached exactly what the trace says can
// be: expansion to tokens, hashing in the engine, usage on the wire and the summary agree to the last token.
func TestEngineCachesWhatTheTracePromises(t *testing.T) {
	trace := workload.Generate(time.Minute, 4)
	want := trace.Stats()
	tokens := int(want.Input.Mean * float64(want.Requests))
	e, err := enginesim.Start(t.Context(), enginesim.Options{Model: "m", BlockSize: 16, Blocks: 2 * tokens / 16})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	res, err := Drive(t.Context(), Options{URL: e.URL(), Model: "m", TimeScale: 1000, Concurrency: 1}, trace)
	if err != nil {
		t.Fatal(err)
	}
	s := res.Summary()
	if s.Errors != 0 || s.Requests != want.Requests {
		t.Fatalf("%d errors in %d requests: %v", s.Errors, s.Requests, res.Outcomes[0].Err)
	}
	if got, want := fmt.Sprintf("%.9f", s.HitRatio), fmt.Sprintf("%.9f", want.TokenHitRatio); got != want {
		t.Errorf("hit ratio %s, the trace promises %s", got, want)
	}
	for i, r := range trace.Requests {
		if o := res.Outcomes[i]; o.Prompt != r.Input || o.Output != r.Output || o.Chunks != r.Output {
			t.Fatalf("request %d: %d prompt tokens, %d output tokens, %d chunks; the trace has %d and %d", i, o.Prompt, o.Output, o.Chunks, r.Input, r.Output)
		}
	}
}
