package ledger

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/router/policy"
)

// TestTheLedgerTeachesRates streams from an engine that is three times slower than the profile, and one as it says.
func TestTheLedgerTeachesRates(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := NewPool(poolRecord.ID, named(policy.RoundRobin), 1, now)
	view := viewOf(2)
	for i := range 400 {
		r, _ := p.Reserve(view, wishOf(keysOf(uint64(i), 400), nil, true), now)
		slow := map[string]float64{"e00": 1, "e01": 3}[r.Engine.ID]
		now = now.Add(time.Duration(slow * (r.steps + r.seconds) * float64(time.Second)))
		r.FirstByte(now)
		for range 20 {
			step := slow * p.state.StepSeconds(1, r.Prompt)
			now = now.Add(time.Duration(step * float64(time.Second)))
			r.Token(1, time.Duration(step*float64(time.Second)))
		}
		r.Release(now, true, true)
	}
	for id, want := range map[string]float64{"e00": 1, "e01": 3} {
		if r := p.state.Rate(id); r.Prefill < want*.95 || r.Prefill > want*1.05 || r.Decode < want*.95 || r.Decode > want*1.05 {
			t.Errorf("%s: rate %v, want %v", id, r, want)
		}
	}
}

func TestAnAnswerThatDoesNotStreamStopsWaitingWhenItsPrefillIsDone(t *testing.T) {
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	view := viewOf(1)
	whole, _ := p.Reserve(view, wishOf(keysOf(1, 500), nil, false), now)
	streamed, _ := p.Reserve(view, wishOf(keysOf(2, 500), nil, true), now)
	w := whole.row
	if len(w.waiting) != 2 {
		t.Fatalf("%d wait", len(w.waiting))
	}
	c := w.candidate(now, now.Add(time.Minute))
	if c.Waiting != 1 || c.Active != 2 || c.Uncached != streamed.Uncached || c.DecodeContext != whole.Prompt {
		t.Errorf("candidate %+v", c)
	}
	whole.Release(now, true, true)
	streamed.Release(now, true, true)
	if w.active != 0 || w.decodeContext != 0 {
		t.Errorf("row keeps %+v", w)
	}
}
