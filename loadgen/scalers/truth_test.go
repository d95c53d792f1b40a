package scalers

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Values of the Erlang C formula: of one server it is the load; two and five servers by hand; ten from its tables.
func TestErlangC(t *testing.T) {
	for _, c := range []struct {
		n          int
		load, want float64
	}{{1, .5, .5}, {2, 1, 1. / 3}, {5, 4, .5541}, {10, 8, .4092}, {10, 10, 1}, {3, 0, 0}} {
		if got := erlangC(c.n, c.load); math.Abs(got-c.want) > 1e-4 {
			t.Errorf("erlangC(%d, %v) = %v, want %v", c.n, c.load, got, c.want)
		}
	}
}

func TestPrefillsIsTheLeastThatMeetsTheBudget(t *testing.T) {
	sizes := []float64{.1, .1, .1, .1}
	late := func(n int, load, budget float64) float64 {
		return erlangC(n, load) * math.Exp(-(budget-.1)*2*(float64(n)-load)/.1)
	}
	for _, load := range []float64{.2, 1, 4.5, 18} {
		n := prefills(load, sizes, .2, 1, .01)
		if late(n, load, .2) > .01 {
			t.Errorf("load %v: %d are too few", load, n)
		}
		if float64(n-1) > load/.95 && late(n-1, load, .2) <= .01 {
			t.Errorf("load %v: %d would do", load, n-1)
		}
	}
	if n := prefills(7, []float64{9, 9}, 1.5, 1, .01); n != 10 {
		t.Errorf("no prompt can meet the objective: %d replicas, want 7/.7", n)
	}
}

func TestOthersAreBlind(t *testing.T) {
	truth := steady(60, 1600, 200)
	for _, name := range Names() {
		if seesTruth(name) {
			continue
		}
		for _, variant := range []string{"default", "tuned"} {
			blind, err := New(name, variant, Setup{Policy: policy(), Startup: 110 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			told, err := New(name, variant, Setup{Policy: policy(), Startup: 110 * time.Second, Truth: truth})
			if err != nil {
				t.Fatal(err)
			}
			rate := func(second int) float64 { return 20 + float64(second)/30 }
			a, b := newToy(1600, 200, 3).run(blind, 0, 600, rate), newToy(1600, 200, 3).run(told, 0, 600, rate)
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%s %s answers otherwise when the truth is there to see", name, variant)
			}
		}
	}
}

// quietThenBusy is 20 minutes of 5 requests/s, 20 of 50, and 20 of 5.
func quietThenBusy() *Truth {
	t := &Truth{Begin: begin}
	for at := 0.; at < 3600; {
		t.Arrivals = append(t.Arrivals, Arrival{At: time.Duration(at * 1e9), Prompt: 1600, Uncached: 1600, Output: 200})
		if at >= 1200 && at < 2400 {
			at += 1. / 50
		} else {
			at += 1. / 5
		}
	}
	return t
}

func TestClairvoyantOrdersAStartAhead(t *testing.T) {
	s, err := New("clairvoyant", "", Setup{Policy: policy(), Startup: 110 * time.Second, Truth: quietThenBusy()})
	if err != nil {
		t.Fatal(err)
	}
	fleet := newToy(1600, 200, 2)
	ordered := fleet.run(s, 0, 3600, constant(1))
	prefill := func(second int) int { return ordered[second/5][decide.Prefill] }
	if quiet, busy := prefill(1000), prefill(1150); quiet > 3 || busy < 6 {
		t.Errorf("200 s before the load %d replicas, 50 s before it %d", quiet, busy)
	}
	if prefill(2350) < 6 || prefill(2500) > 3 {
		t.Errorf("before the end of the load %d replicas, after it %d", prefill(2350), prefill(2500))
	}
}

func TestStaticPeakIsTheMostOfClairvoyant(t *testing.T) {
	setup := Setup{Policy: policy(), Startup: 110 * time.Second, Truth: quietThenBusy()}
	fixed, err := New("static-peak", "", setup)
	if err != nil {
		t.Fatal(err)
	}
	seer, err := New("clairvoyant", "", setup)
	if err != nil {
		t.Fatal(err)
	}
	o := newToy(1600, 200, 2).step(begin, 1)
	peak := fixed.Decide(o, begin)
	top := map[decide.Role]int{}
	for second := 0; second < 3600; second += 5 {
		for role, n := range seer.Decide(o, at(second)) {
			top[role] = max(top[role], n)
		}
		if again := fixed.Decide(o, at(second)); !reflect.DeepEqual(again, peak) {
			t.Fatalf("it changed from %v to %v", peak, again)
		}
	}
	if !reflect.DeepEqual(top, peak) {
		t.Errorf("static %v, most of clairvoyant %v", peak, top)
	}
}
