package sim

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// scaler is a Scaler of one function.
type scaler func(o decide.Observation, now time.Time) []decide.Step

func (s scaler) Steps(o decide.Observation, now time.Time) []decide.Step { return s(o, now) }

func still(decide.Observation, time.Time) []decide.Step { return nil }

// poisson are requests of one shape at a rate.
func poisson(seed uint64, rate float64, prompt, output int, until time.Duration) func() (Arrival, bool) {
	rng, at := rand.New(rand.NewPCG(seed, 1)), time.Duration(0)
	id := uint64(firstOwn)
	return func() (Arrival, bool) {
		at += time.Duration(rng.ExpFloat64() / rate * float64(time.Second))
		id++
		return Arrival{At: at, Prompt: Prompt{{id, prompt}}, Output: output, Fits: true}, at < until
	}
}

func breathing(until time.Duration) Elastic {
	return Elastic{
		Prefill: enginesim.Reference, Decode: enginesim.Reference, Initial: map[decide.Role]int{decide.Prefill: 2, decide.Decode: 2},
		Startup: 30 * time.Second, SLO: SLO{TTFT: 1500 * time.Millisecond, ITL: 30 * time.Millisecond}, Seed: 1,
		Arrivals: poisson(1, 6, 2000, 150, until), Until: until, Scaler: scaler(still),
	}
}

func TestElasticAnswersAll(t *testing.T) {
	for _, fcfs := range []bool{true, false} {
		for _, shared := range []bool{true, false} {
			e := breathing(2 * time.Minute)
			e.FCFS, e.Shared = fcfs, shared
			n, good := 0, 0
			e.Answered = func(o Outcome) {
				n++
				if !o.Lost && o.TTFT < e.SLO.TTFT && o.ITL < e.SLO.ITL {
					good++
				}
			}
			r, err := RunElastic(e)
			if err != nil || n != r.Requests || n < 600 || good < n*99/100 {
				t.Errorf("%v: %d answered, %d good of %+v", err, n, good, r)
			}
			if got := r.Roles[decide.Decode]; got.Seconds != 240 || got.Most != 2 || got.Ordered != 0 {
				t.Errorf("%+v", got)
			}
		}
	}
	_ = reflect.DeepEqual
}
