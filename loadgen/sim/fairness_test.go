package sim

import (
	"testing"
	"time"
)

// Tenants that ask for too much get alike in turns, whatever each asks for, and who asks for little hardly waits; as
// they come, who asks most gets most. Neither order may leave engines idle.
func TestFairnessOfTheQueue(t *testing.T) {
	crowd := DefaultCrowd()
	crowd.Length = 20 * time.Second
	by := map[Order]*FairnessResult{}
	for _, order := range []Order{"", FIFO, Turns} {
		r, err := Fairness(Options{Pods: 4, Seed: 1}, crowd, order)
		if err != nil {
			t.Fatal(err)
		}
		by[order] = r
		t.Logf("%-5s jain %.3f, %.0f tok/s, %+v", order, r.Jain, r.TokS, r.Shares)
	}
	light := len(crowd.Others)
	if turns, fifo := by[Turns], by[FIFO]; turns.Jain < .97 || fifo.Jain > .8 || turns.Shares[light].TTFTP50 > fifo.Shares[light].TTFTP50/5 {
		t.Errorf("in turns %+v, as they come %+v", turns, fifo)
	}
	if by[Turns].TokS < .9*by[""].TokS {
		t.Errorf("%.0f tok/s in turns, %.0f without a queue", by[Turns].TokS, by[""].TokS)
	}
}
