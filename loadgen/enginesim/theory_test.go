package enginesim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// With one seat and one token an answer the engine is an M/D/1 queue.
func TestQueueIsMD1(t *testing.T) {
	const input, arrivals = 16, 200_000
	p := Profile{Base: 10, Prefill: 0.5, Pairs: 100}
	service := time.Duration((p.Base + p.Prefill*input + p.Pairs*input*input/2e6) * 1e6)
	for _, rho := range []float64{.3, .6, .9} {
		c := NewCore(CoreOptions{Profile: p, MaxSeqs: 1, Blocks: 64, Hash: QuickHash{}})
		rnd := rand.New(rand.NewPCG(3, uint64(rho*10)))
		var all []arrival
		var at time.Duration
		for i := range arrivals {
			at += time.Duration(rnd.ExpFloat64() * float64(service) / rho)
			all = append(all, arrival{at, &Request{ID: fmt.Sprint(i), Prompt: sequential(i*input, input), MaxTokens: 1, Tag: at}})
		}
		var waited time.Duration
		drive(t, c, all, func(begin, end time.Duration, r *StepResult) {
			if end-begin != service || len(r.Outputs) != 1 {
				t.Fatalf("a step of %v with %d answers, want %v", end-begin, len(r.Outputs), service)
			}
			waited += begin - r.Outputs[0].Request.Tag.(time.Duration)
		})
		got, want := waited.Seconds()/arrivals, rho*service.Seconds()/(2*(1-rho))
		if math.Abs(got/want-1) > 0.02 {
			t.Errorf("load %.1f: mean wait %.5f s, want %.5f s", rho, got, want)
		}
	}
}

// The time per output token of a closed loop of clients.
func TestClosedLoopTPOT(t *testing.T) {
	p := Qwen3_32B_TP2_H100
	for _, tc := range []struct{ clients, input, output float64 }{{8, 1024, 1024}, {32, 1024, 256}, {32, 4096, 512}, {128, 512, 256}} {
		c := NewCore(CoreOptions{Profile: p, Hash: QuickHash{}})
		rnd := rand.New(rand.NewPCG(6, 6))
		next := 0
		submit := func(output int) {
			next++
			prompt := sequential(next<<13, int(tc.input))
			if err := c.Submit(&Request{ID: fmt.Sprint(next), Prompt: prompt, MaxTokens: output}); err != nil {
				t.Fatal(err)
			}
		}
		for range int(tc.clients) { // clients begin at different points of an answer
			submit(1 + rnd.IntN(int(tc.output)))
		}
		var now, sum time.Duration
		var r StepResult
		first := map[string]time.Duration{}
		counted, finished := 0, 0
		for counted < 10*int(tc.clients) && c.Step(&r) {
			now += r.Duration
			for _, o := range r.Outputs {
				if o.Index == 0 {
					first[o.Request.ID] = now
				}
				if !o.Finished {
					continue
				}
				if finished++; finished > 2*int(tc.clients) {
					counted++
					sum += (now - first[o.Request.ID]) / time.Duration(o.Index)
				}
				submit(int(tc.output) + rnd.IntN(21) - 10)
			}
		}
		i, o, n := tc.input, tc.output, tc.clients
		want := p.Base + p.Prefill*n*i/o + p.Decode*n + p.Context*n*(i+o/2)/1000 + p.Pairs*n*i*i/(2e6*o)
		got := sum.Seconds() * 1e3 / float64(counted)
		if math.Abs(got/want-1) > 0.03 {
			t.Errorf("%+v: %.2f ms a token, want %.2f ms", tc, got, want)
		}
	}
}
