package scalers

import (
	"testing"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// The proportion is found once: when answers become short, which takes a load off decode alone, prefill goes with it.
func TestRatioStaysWhatItWas(t *testing.T) {
	s, err := New("fixed-ratio", "default", Setup{Policy: policy()})
	if err != nil {
		t.Fatal(err)
	}
	fleet := newToy(1600, 200, 4)
	before := fleet.run(s, 0, 1800, constant(60))
	fleet.output = 25
	after := fleet.run(s, 1800, 3600, constant(60))
	// .115/.7 s of prefill a request, and 200 tokens of .6 x 95.7/.0279 = 2,059/s: .164 x 10.3 = 1.69 of prefill for each.
	for _, last := range []map[decide.Role]int{before[len(before)-1], after[len(after)-1]} {
		if last[decide.Prefill] != ceil(1.691*float64(last[decide.Decode])) {
			t.Errorf("%v is not 1.69 to 1", last)
		}
	}
	if n := after[len(after)-1][decide.Prefill]; n >= 7 {
		t.Errorf("%d prefill replicas: 6.9 are busy, and no fixed proportion knows", n)
	}
}
