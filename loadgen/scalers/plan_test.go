package scalers

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func TestFluidIsTheMeanWorkRoundedUp(t *testing.T) {
	p := Fluid(quietThenBusy(), policy(), 110*time.Second)
	// 5 x .115 = .575 and 50 x .115 = 5.75 busy replicas.
	for minute, want := range map[int]int{5: 1, 15: 1, 25: 6, 35: 6, 45: 1, 58: 1} {
		if n := p.Ready[decide.Prefill][minute]; n != want {
			t.Errorf("minute %d: %d prefill replicas, want %d", minute, n, want)
		}
	}
	if len(p.Ready[decide.Prefill]) != 60 {
		t.Errorf("%d minutes", len(p.Ready[decide.Prefill]))
	}
}

func TestBridge(t *testing.T) {
	for _, c := range []struct {
		startup  time.Duration
		in, want []int
	}{
		{time.Minute, []int{5, 3, 5, 2, 2, 5}, []int{5, 5, 5, 2, 2, 5}},
		{2 * time.Minute, []int{5, 3, 5, 2, 2, 4}, []int{5, 5, 5, 4, 4, 4}},
		{30 * time.Second, []int{5, 3, 5}, []int{5, 3, 5}},
	} {
		if got := bridge(c.in, c.startup); !reflect.DeepEqual(got, c.want) {
			t.Errorf("bridge(%v, %v) = %v, want %v", c.in, c.startup, got, c.want)
		}
	}
}

func TestOfflineOptimumFollowsItsPlan(t *testing.T) {
	truth := &Truth{Begin: begin, Plan: &Plan{Ready: map[decide.Role][]int{
		decide.Prefill: {1, 1, 1, 4, 4, 1}, decide.Decode: {2, 2, 2, 2, 2, 2},
	}}}
	s, err := New("offline-optimum", "", Setup{Policy: policy(), Startup: time.Minute, Truth: truth})
	if err != nil {
		t.Fatal(err)
	}
	o := newToy(1600, 200, 2).step(begin, 1)
	for second, want := range map[int]int{0: 1, 95: 1, 110: 4, 295: 4, 300: 1, 5000: 1} {
		if n := s.Decide(o, at(second))[decide.Prefill]; n != want {
			t.Errorf("%d s: %d, want %d", second, n, want)
		}
	}
}

// enough is a simulator whose attainment is the share of minutes with enough of both roles.
func enough(p, d []int, calls *int) func(Plan) (float64, float64, error) {
	return func(plan Plan) (float64, float64, error) {
		*calls++
		met, cost := 0, 0
		for i := range p {
			np, nd := plan.Ready[decide.Prefill][i], plan.Ready[decide.Decode][i]
			cost += np + nd
			if np >= p[i] && nd >= d[i] {
				met++
			}
		}
		return float64(met) / float64(len(p)), float64(cost), nil
	}
}

func TestBestFoundFindsTheLeast(t *testing.T) {
	var p, d, fluid []int
	for i := range 60 {
		p, d, fluid = append(p, 3+i/10), append(d, 2+i%2), append(fluid, 2)
	}
	start := Plan{Ready: map[decide.Role][]int{decide.Prefill: fluid, decide.Decode: fluid}}
	calls := 0
	best, err := BestFound(context.Background(), start, enough(p, d, &calls), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(best.Ready[decide.Prefill], p) || !reflect.DeepEqual(best.Ready[decide.Decode], d) {
		t.Errorf("best found\n%v\n%v, want\n%v\n%v", best.Ready[decide.Prefill], best.Ready[decide.Decode], p, d)
	}
	if best.Calls != calls || calls > searchCalls {
		t.Errorf("it says %d calls, and made %d", best.Calls, calls)
	}
	if fluid[0] != 2 {
		t.Error("it changed the plan that it began with")
	}
}

func TestBestFoundSaysWhatItCannot(t *testing.T) {
	start := Plan{Ready: map[decide.Role][]int{decide.Prefill: {1}, decide.Decode: {1}}}
	never := func(Plan) (float64, float64, error) { return .5, 1, nil }
	if _, err := BestFound(context.Background(), start, never, .99); !errors.Is(err, ErrUnreached) {
		t.Errorf("err = %v, want ErrUnreached", err)
	}
	broken := errors.New("broken")
	fails := func(Plan) (float64, float64, error) { return 0, 0, broken }
	if _, err := BestFound(context.Background(), start, fails, .99); !errors.Is(err, broken) {
		t.Errorf("err = %v, want that of the simulator", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := BestFound(ctx, start, never, .99); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want that it was canceled", err)
	}
}
