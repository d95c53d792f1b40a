package scalers

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func policy() decide.Policy {
	bounds := decide.Bounds{Min: 1, Max: 40, GPUs: 2}
	return decide.Policy{
		TTFT: 1500 * time.Millisecond, ITL: 30 * time.Millisecond,
		Bounds: map[decide.Role]decide.Bounds{decide.Prefill: bounds, decide.Decode: bounds},
	}
}

// steady is an hour of equal requests at an equal pace.
func steady(perSecond float64, prompt, output int) *Truth {
	t := &Truth{}
	for i := range int(perSecond * 3600) {
		at := time.Duration(float64(i) / perSecond * float64(time.Second))
		t.Arrivals = append(t.Arrivals, Arrival{At: at, Prompt: prompt, Uncached: prompt, Output: output})
	}
	return t
}

func seesTruth(name string) bool {
	return name == "static-peak" || name == "clairvoyant" || name == "offline-optimum"
}

func TestOnlyThreeSeeTheTruth(t *testing.T) {
	for _, name := range Names() {
		_, err := New(name, "default", Setup{Policy: policy(), Startup: time.Minute})
		if seesTruth(name) != errors.Is(err, ErrTruth) {
			t.Errorf("%s without truth: %v", name, err)
		}
		if !seesTruth(name) && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefusesWhatItDoesNotKnow(t *testing.T) {
	if _, err := New("best", "default", Setup{}); err == nil {
		t.Error("a name that nobody knows was taken")
	}
	if _, err := New("kpa", "better", Setup{}); err == nil {
		t.Error("a variant that nobody knows was taken")
	}
}

// 10 requests/s of 1,600 tokens keep 10 x (.015 + .1) = 1.15 replicas busy; with 1,000 tokens of context 12.9/.106 =
// 121.7 sequences meet 27.9 ms, and 10 x 200 x .0279 = 55.8 of them are there at once: .46 replicas.
func TestNeedsOfASteadyLoad(t *testing.T) {
	truth := steady(10, 1600, 200)
	for i := range truth.Arrivals {
		truth.Arrivals[i].Prompt = 900
	}
	s := foresee(truth, filled(policy()))
	middle := len(s.busy) / 2
	if b := s.busy[middle]; math.Abs(b-1.15) > .001 {
		t.Errorf("busy = %v, want 1.15", b)
	}
	if x := s.occupied[middle]; math.Abs(x-55.8/((27.9-14)/.106)) > .003 {
		t.Errorf("occupied = %v", x)
	}
}
