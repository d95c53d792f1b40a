package ledger

import (
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

func TestRoomByTheWait(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(2)
	g := Gate{Wait: time.Second}
	room := func(u Unbooked, now time.Time) bool { return p.Room(view, model, g, u, now) }
	if !room(Unbooked{}, now) || !room(Unbooked{1, 1 << 20}, now) || room(Unbooked{2, 1 << 20}, now) {
		t.Error("an idle engine has room for one, however long it is, and two engines for two")
	}
	var held []*Reservation
	for i := range 60 { // 30,016 tokens each are 2.2 s
		if room(Unbooked{}, now) != (i < 2) {
			t.Fatalf("with %d booked: room is %v", i, i >= 2)
		}
		if i == 2 {
			break
		}
		r, _ := p.Reserve(view, wishOf(keysOf(uint64(i), 1876), nil, true), now)
		held = append(held, r)
	}
	if later := now.Add(2 * time.Second); !room(Unbooked{}, later) {
		t.Error("what was computed meanwhile still counts")
	}
	held[0].FirstByte(now)
	if !room(Unbooked{}, now) {
		t.Error("no room after a first byte")
	}
	if p.Room(view, model, Gate{}, Unbooked{1000, 1 << 30}, now) != true {
		t.Error("a gate without bounds is closed")
	}
}

func TestRoomByTheITL(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(2)
	g := Gate{ITL: 16 * time.Millisecond} // a step is 13.99 ms, and .0764 more for each sequence
	n := 0
	for ; p.Room(view, model, g, Unbooked{}, now); n++ {
		w := wishOf(keysOf(uint64(n), 1), nil, true)
		w.Gate = g
		r, _ := p.Reserve(view, w, now)
		r.FirstByte(now)
	}
	loads := p.Loads()
	if a, b := loads["e00"].Active, loads["e01"].Active; n < 40 || n > 54 || a-b > 1 || b-a > 1 {
		t.Errorf("%d sequences: %d and %d", n, a, b)
	}
	// Who is let in all the same goes where there is room, if there is any.
	held, _ := p.Reserve(view, wishOf(keysOf(999, 1), nil, true), now)
	held.Release(now, true, true)
}

func TestRoomInPoolsWithRoles(t *testing.T) {
	now := time.Unix(50_000, 0)
	g := Gate{Wait: time.Second, ITL: 14 * time.Millisecond} // decode engines take one sequence
	p, view := warmPool(now), viewWith(fleet.Decode, fleet.Prefill)
	room := func() bool { return p.Room(view, model, g, Unbooked{}, now) }
	if !room() {
		t.Fatal("no room in an idle pool")
	}
	r, _ := p.Reserve(view, splitWish(1, 1876), now)
	if r.Prefill == nil || room() {
		t.Error("the decode engine takes two")
	}
	r.PrefillDone(now)
	r.Release(now, true, true)
	if !room() {
		t.Error("no room when it has ended")
	}
}

func TestRoomWhereNobodyIsHealthy(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(1)
	for range failuresToEject {
		r, _ := p.Reserve(view, wishOf(nil, nil, true), now)
		r.Failed(now)
		r.Release(now, false, false)
	}
	if !p.Room(view, model, Gate{Wait: time.Second}, Unbooked{}, now) {
		t.Error("with only ejected engines nobody is let in")
	}
	for range 60 { // what waits behind an engine that hangs is bounded as elsewhere
		p.Reserve(view, wishOf(keysOf(1, 1876), nil, true), now)
	}
	if p.Room(view, model, Gate{Wait: time.Second}, Unbooked{}, now) {
		t.Error("an ejected engine has room without end")
	}
	e := view.Engines["e00"]
	e.State = fleet.Gone
	gone := viewOf(1)
	gone.Engines["e00"] = e
	if p.Room(gone, model, Gate{}, Unbooked{}, now) {
		t.Error("room where no engine is")
	}
}

func TestEnginesThatAreFullArePassedOver(t *testing.T) {
	now := time.Unix(50_000, 0)
	p, view := warmPool(now), viewOf(3)
	keys := keysOf(1, 100)
	first, _ := p.Reserve(view, wishOf(keys, map[string]uint32{"e01": 100}, true), now)
	first.FirstByte(now)
	w := wishOf(keys, map[string]uint32{"e01": 100}, true)
	if r, _ := p.Reserve(view, w, now); r.Engine.ID != "e01" {
		t.Fatalf("without a gate it goes to %s", r.Engine.ID)
	} else {
		r.Release(now, false, false)
	}
	w.Gate = Gate{ITL: 14 * time.Millisecond}
	if r, _ := p.Reserve(view, w, now); first.Engine.ID != "e01" || r.Engine.ID == "e01" {
		t.Errorf("it goes to %s, where one decodes", r.Engine.ID)
	}
}
