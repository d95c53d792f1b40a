package scalers

import (
	"testing"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// The proportion is found once: when prompts grow fourfold prefill does not follow.
func TestRatioStaysWhatItWas(t *testing.T) {
	s, err := New("fixed-ratio", "default", Setup{Policy: policy()})
	if err != nil {
		t.Fatal(err)
	}
	fleet := newToy(1600, 200, 4)
	before := fleet.run(s, 0, 1800, constant(30))
	fleet.prompt = 6400
	after := fleet.run(s, 1800, 3600, constant(30))
	of := func(o map[decide.Role]int) float64 { return float64(o[decide.Prefill]) / float64(o[decide.Decode]) }
	// .115/.7 s of prefill a request, and 200 tokens of .8 x 95.7/.0279 = 2,745/s: .164 x 13.7 = 2.25 of prefill for each.
	last := before[len(before)-1]
	if last[decide.Prefill] != ceil(2.25*float64(last[decide.Decode])) {
		t.Errorf("%v is not 2.25 to 1", last)
	}
	if r := of(after[len(after)-1]); r < 2.2 || r > 3 {
		t.Errorf("after the change prefill is %.2f of decode", r)
	}
}
