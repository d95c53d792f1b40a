package ledger

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// What a prefill engine has computed is its own until the decode engine has it: an engine that goes earlier takes the
// prompt with it.
func TestAPrefillEngineIsBusyUntilItsPromptIsFetched(t *testing.T) {
	now := time.Unix(50_000, 0)
	for name, end := range map[string]func(*Reservation){
		"fetched": func(r *Reservation) { r.FirstByte(now) },
		"given up": func(r *Reservation) {
			r.Release(now, false, false)
		},
	} {
		p, view := warmPool(now), viewWith(fleet.Decode, fleet.Prefill)
		r, _ := p.Reserve(view, splitWish(1, 100), now)
		lent := func() int { return p.Standings(now)["e01"].Lent }
		if n := lent(); n != 0 {
			t.Errorf("%s: %d lent before any was computed", name, n)
		}
		r.PrefillDone(now.Add(time.Second))
		r.PrefillDone(now.Add(time.Second))
		if n := lent(); n != 1 {
			t.Errorf("%s: %d lent when it is computed", name, n)
		}
		if took, known := r.Prefill.PrefillTook(); !known || took != time.Second {
			t.Errorf("%s: it took %v, known %v", name, took, known)
		}
		end(r)
		end(r)
		if n := lent(); n != 0 {
			t.Errorf("%s: %d lent at the end", name, n)
		}
		r.Release(now, true, true)
	}
}

func TestOnlyAPromptThatWaitedForNoneTellsHowLongItTook(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(1)
	first, _ := p.Reserve(view, wishOf(keysOf(1, 4), nil, true), now)
	second, _ := p.Reserve(view, wishOf(keysOf(2, 4), nil, true), now)
	first.FirstByte(now.Add(30 * time.Millisecond))
	second.FirstByte(now.Add(60 * time.Millisecond))
	if took, known := first.PrefillTook(); !known || took != 30*time.Millisecond {
		t.Errorf("the first took %v, known %v", took, known)
	}
	if took, known := second.PrefillTook(); known {
		t.Errorf("the second waited for the first, and took %v", took)
	}
	whole, _ := p.Reserve(view, wishOf(keysOf(3, 4), nil, false), now)
	whole.FirstByte(now.Add(time.Second))
	if _, known := whole.PrefillTook(); known {
		t.Error("an answer that does not stream tells when its prompt was done")
	}
}

func TestStandingsCountGapsAndSayWhoDrains(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(1)
	r, _ := p.Reserve(view, wishOf(keysOf(1, 4), nil, true), now)
	r.FirstByte(now)
	r.Token(1, 0)
	for range gapsTold + 3 {
		r.Token(1, 20*time.Millisecond)
	}
	if s := p.Standings(now)["e00"]; s.Gaps != gapsTold || s.GapTime.Round(time.Microsecond) != gapsTold*20*time.Millisecond || s.Active != 1 {
		t.Errorf("while it streams: %+v", s)
	}
	r.Release(now, true, true)
	all := (gapsTold + 3) * 20 * time.Millisecond
	if s := p.Standings(now)["e00"]; s.Gaps != gapsTold+3 || s.GapTime.Round(time.Microsecond) != all || s.Active != 0 || s.Draining {
		t.Errorf("at the end: %+v", s)
	}
	marked := *view
	marked.Draining = map[string]bool{"e00": true}
	p.Sweep(&marked, now)
	if s := p.Standings(now)["e00"]; !s.Draining {
		t.Errorf("a draining engine is %+v", s)
	}
}

// An answer that does not stream decodes from when it should, also where no further request comes that would look.
func TestStandingsLetTimePass(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(1)
	if r, _ := p.Reserve(view, wishOf(keysOf(1, 4), nil, false), now); r == nil {
		t.Fatal("no engine")
	}
	if s := p.Standings(now)["e00"]; s.Waiting != 1 {
		t.Errorf("at once: %+v", s)
	}
	if s := p.Standings(now.Add(time.Minute))["e00"]; s.Waiting != 0 || s.Uncached != 0 || s.DecodeContext == 0 {
		t.Errorf("a minute later: %+v", s)
	}
}
