package scalers

import (
	"math"
	"testing"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// 20 requests/s of 1,600 uncached tokens, .115 s each: 2.3 engines at full use. Decode at 30 ms with 1,700 tokens of
// context holds 16/(.05 + .0952) = 110 sequences, 110/(200 x .03) = 18.4 requests/s: two engines.
func TestDynamoFloor(t *testing.T) {
	for _, c := range []struct {
		role decide.Role
		want int
	}{{decide.Prefill, 3}, {decide.Decode, 2}} {
		v := crowd(c.role, 1, 1, decide.Engine{})
		d := newDynamo(v, false, filled(policy()))
		for second := 0; second <= 180; second += 5 {
			n := float64(20 * second)
			v.routers = &decide.Routers{Arrivals: n, Finished: n, Prompt: 2000 * n, Uncached: 1600 * n, Output: 200 * n}
			if c.role == decide.Decode {
				v.routers.Prompt, v.routers.Uncached = 1600*n, 1600*n
			}
			want := 1
			if second == 180 {
				want = c.want
			}
			if got := d.want(v, at(second)); got != want {
				t.Fatalf("%s at %d s: %d, want %d", c.role, second, got, want)
			}
		}
	}
}

func TestDynamoSkipsAnIntervalWithoutRequests(t *testing.T) {
	v := crowd(decide.Prefill, 4, 4, decide.Engine{})
	d := newDynamo(v, false, filled(policy()))
	d.floor = 4
	for second := 0; second <= 720; second += 5 {
		if n := d.want(v, at(second)); n != 4 {
			t.Fatalf("without a request: %d", n)
		}
	}
}

// The load loop adds one where every engine is late, and waits until it is there.
func TestDynamoLoadLoop(t *testing.T) {
	late := decide.Engine{Backlog: 40_000} // 2.5 s
	v := crowd(decide.Prefill, 2, 2, late)
	d := newDynamo(v, false, filled(policy()))
	for second := 0; second < 60; second += 5 {
		if n := d.want(v, at(second)); n != 3 {
			t.Fatalf("both late: %d, want one more, once", n)
		}
	}
	v.engines = append(v.engines, decide.Engine{ID: "c", Serving: true, Role: decide.Prefill})
	if n := d.want(v, at(60)); n != 3 {
		t.Errorf("one of three is idle: %d", n)
	}
	for i := range v.engines {
		v.engines[i].Backlog = 1000
	}
	for second := 65; second < 120; second += 5 {
		if n := d.want(v, at(second)); n != 3 {
			t.Fatalf("idle for %d s: %d", second-60, n)
		}
	}
	for second := 120; second < 180; second += 5 {
		d.want(v, at(second))
	}
	if n := d.want(v, at(180)); n >= 3 {
		t.Errorf("idle for two minutes: %d", n)
	}
}

func TestDynamoStepsOfEight(t *testing.T) {
	v := crowd(decide.Prefill, 2, 2, decide.Engine{})
	d := newDynamo(v, false, filled(policy()))
	d.floor = 30
	for i, want := range []int{10, 18, 26, 30} {
		if n := d.want(v, at(5*i)); n != want {
			t.Fatalf("step %d: %d, want %d", i, n, want)
		}
	}
}

// A line is predicted, one interval ahead; before five values the last one is.
func TestTrendFollowsALine(t *testing.T) {
	var line trend
	for i := range 60 {
		line.add(10 + 3*float64(i))
		if i < 4 && line.next() != 10+3*float64(i) {
			t.Fatalf("after %d values: %v, want the last", i+1, line.next())
		}
	}
	if next := line.next(); math.Abs(next-190) > 1 {
		t.Errorf("next = %v, want 190", next)
	}
	var flat trend
	for range 10 {
		flat.add(7)
	}
	if next := flat.next(); math.Abs(next-7) > 1e-9 {
		t.Errorf("next of equal ones = %v", next)
	}
}

// Engines that are half as fast as the prior says are known to be after a few hundred requests.
func TestCalibrationFollowsTheEngines(t *testing.T) {
	c := newCalibration(filledModel(decide.Model{}))
	fleet := newToy(1600, 200, 8)
	slow := fleet.model
	slow.Overhead, slow.Rate = slow.Overhead*2, slow.Rate/2
	slow.Step, slow.Sequence, slow.Kilo = slow.Step*2, slow.Sequence*2, slow.Kilo*2
	fleet.model = slow
	for second := 0; second < 300; second += 5 {
		o := fleet.step(at(second), 20)
		c.learn(newView(&o, decide.Decode))
	}
	got := c.model()
	if off := math.Abs(got.Rate/slow.Rate - 1); off > .05 {
		t.Errorf("prefill rate %v, want %v", got.Rate, slow.Rate)
	}
	if off := math.Abs(got.Overhead/slow.Overhead - 1); off > .05 {
		t.Errorf("overhead %v, want %v", got.Overhead, slow.Overhead)
	}
	if off := math.Abs(got.Step/slow.Step - 1); off > .05 {
		t.Errorf("step %v, want %v", got.Step, slow.Step)
	}
}
