package ledger

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestLedgerAgainstModel drives a pool with random requests and compares every row with sums over the live ones.
func TestLedgerAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	now := time.Unix(50_000, 0)
	p := warmPool(now)
	view := viewOf(5)
	var live []*Reservation
	for step := range 4000 {
		now = now.Add(time.Duration(r.IntN(40)) * time.Millisecond)
		switch r.IntN(5) {
		case 0, 1:
			keys := keysOf(uint64(r.IntN(20)), 1+r.IntN(100))
			res, d := p.Reserve(view, wishOf(keys, map[string]uint32{"e01": uint32(r.IntN(len(keys)))}, r.IntN(2) == 0), now)
			if res == nil || d.Engine.ID != res.row.engine.ID || res.Cached+res.Uncached != res.Prompt || res.Uncached < 1 {
				t.Fatalf("step %d: %+v", step, res)
			}
			live = append(live, res)
		case 2:
			if len(live) > 0 {
				live[r.IntN(len(live))].FirstByte(now)
			}
		case 3:
			if len(live) > 0 {
				if one := live[r.IntN(len(live))]; one.first {
					one.Token(r.IntN(5), time.Duration(r.IntN(30))*time.Millisecond)
				}
			}
		case 4:
			if i := r.IntN(len(live) + 1); i < len(live) {
				live[i].Release(now, live[i].first, true)
				live[i].Release(now, false, false)
				live = slices.Delete(live, i, i+1)
			}
			if r.IntN(200) == 0 {
				view = viewOf(3 + r.IntN(4)) // engines come and go while requests run
			}
		}
		checkRows(t, p, live)
	}
	for _, one := range live {
		one.Release(now, true, true)
	}
	checkRows(t, p, nil)
	for id, w := range p.all {
		if w.active+w.uncached+w.waitContext+w.decodeContext+int(w.streamed.Load()) != 0 || w.waitSeconds != 0 {
			t.Errorf("%s keeps %+v", id, w)
		}
	}
}

func checkRows(t *testing.T, p *Pool, live []*Reservation) {
	t.Helper()
	type sums struct{ active, waiting, coming, waitContext, uncached, decode, streamed int }
	want := map[*row]sums{}
	for _, r := range live {
		s := want[r.row]
		s.active++
		s.streamed += int(r.streamed)
		if slices.Contains(r.row.waiting, r) == (r.first || r.remote) {
			t.Fatalf("%+v is in the queue, or should be", r)
		}
		if r.first {
			s.decode += r.Prompt
		} else if s.waitContext += r.Prompt; r.remote {
			s.coming += r.Uncached
		} else {
			s.waiting++
			s.uncached += r.Uncached
		}
		want[r.row] = s
	}
	for id, w := range p.all {
		got := sums{w.active, len(w.waiting), w.coming.tokens, w.waitContext, w.uncached, w.decodeContext, int(w.streamed.Load())}
		if got != want[w] {
			t.Fatalf("%s: %+v, want %+v", id, got, want[w])
		}
		delete(want, w)
	}
	if len(want) != 0 {
		t.Fatalf("%d rows with requests were forgotten", len(want))
	}
}
