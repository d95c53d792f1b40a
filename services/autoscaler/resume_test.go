package autoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/replica"
)

// A replica of one role that cannot be taken away must not keep another role from growing.
func TestAStepThatFailsEndsThoseOfItsRoleOnly(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	h := &hands{pools: on(), err: errors.New("refused")}
	s, p := w.still(h)
	n := s.act(t.Context(), "p", p, &rule, []decide.Step{
		{Do: decide.Scale, Role: decide.Prefill, From: 3, To: 2},
		{Do: decide.Scale, Role: decide.Prefill, From: 2, To: 1},
		{Do: decide.Drain, Role: decide.Decode, Engine: "e1"},
	})
	if n != 1 || len(h.orders) != 1 {
		t.Errorf("%d steps done, orders %+v", n, h.orders)
	}
	w.marked("e1", replica.ReasonDrains)
}

// A mark of ours goes when its role leaves the policy, when another autoscaler takes the object, and when only some ranks
// of a replica have it.
func TestMarksThatNothingStandsBehindAreTakenBack(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	s, p := w.still(&hands{pools: on()})
	mark := func(id string, since time.Time) {
		t.Helper()
		if err := fleet.Drain(t.Context(), w.conn, "p", id, fleet.DrainRecord{Since: since, Reason: replica.ReasonDrains}); err != nil {
			t.Fatal(err)
		}
		w.until(id+" marked", func(v *fleet.View) bool { return v.Drains[id].Since.Equal(since) })
	}
	takenBack := func(why string) {
		t.Helper()
		s.takeBack(t.Context(), w.watcher.View(), time.Now())
		w.until("taken back: "+why, func(v *fleet.View) bool { return len(v.Drains) == 0 })
	}
	was := p.managed.Replicas
	mark("e1", time.Now())
	p.managed.Replicas = map[decide.Role]decide.Replicas{decide.Prefill: {}}
	takenBack("its role is scaled no more")
	mark("e1", time.Now())
	p.managed.Replicas = map[decide.Role]decide.Replicas{decide.Decode: {Conflict: "HorizontalPodAutoscaler/rival"}}
	takenBack("another scales it")

	p.managed.Replicas = was
	for rank, id := range []string{"r0", "r1"} {
		e := fleet.Engine{ID: id, Name: id, Pool: "p", URL: "http://127.0.0.1:1/r", Role: fleet.Decode, Rank: rank, Ranks: 2, State: fleet.OK}
		if err := fleet.PutEngine(t.Context(), w.conn, e); err != nil {
			t.Fatal(err)
		}
		w.until(id, func(v *fleet.View) bool { return v.Engines[id].ID != "" })
	}
	mark("r0", time.Now())
	s.takeBack(t.Context(), w.watcher.View(), time.Now())
	if !w.watcher.View().Draining["r0"] {
		t.Error("a mark that has just begun is taken back")
	}
	mark("r0", time.Now().Add(-2*markLinger))
	takenBack("only one of two ranks has it")
	mark("r0", time.Now().Add(-2*markLinger))
	mark("r1", time.Now().Add(-2*markLinger))
	s.takeBack(t.Context(), w.watcher.View(), time.Now())
	if v := w.watcher.View(); !v.Draining["r0"] || !v.Draining["r1"] {
		t.Error("the mark of a whole replica is taken back")
	}
}

// Until the policies are read, nobody knows whose marks are wanted; and the state of a pool that is found late is not
// lost to what was learned meanwhile.
func TestNothingIsLostBeforeTheFleetIsKnown(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	if err := fleet.Drain(t.Context(), w.conn, "p", "e1", fleet.DrainRecord{Since: time.Now(), Reason: replica.ReasonDrains}); err != nil {
		t.Fatal(err)
	}
	w.marked("e1", replica.ReasonDrains)
	h := &hands{}
	s, _ := w.still(h)
	tick := func() { s.tick(t.Context(), w.watcher.View(), time.Now()) }
	tick()
	if s.pools["p"] == nil || s.pools["p"].acts {
		t.Fatalf("pools %+v", s.pools)
	}
	state := decide.State{}
	state.Memory.Seen = 12345
	data, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	h.pools = on()
	tick() // the policy is known, its state not yet
	m := h.pools["p"]
	m.State = data
	h.pools["p"] = m
	tick()
	if got := s.pools["p"].state.Memory.Seen; got < 12345 {
		t.Errorf("it begins anew: %v s seen", got)
	}
	before := s.pools["p"].state.Memory.Seen
	s.keep(t.Context(), "p", s.pools["p"])
	tick()
	if got := s.pools["p"].state.Memory.Seen; got < before {
		t.Errorf("what was kept at the beginning is read again: %v s seen", got)
	}
	if !w.watcher.View().Draining["e1"] {
		t.Error("a mark that is wanted was taken back")
	}
}

// A state that nothing can go on from is dropped: it must not end one autoscaler after the other.
func TestADamagedStateIsDropped(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	go func() {
		_ = fleet.Announce(t.Context(), w.conn, func() fleet.Member { return fleet.Member{Service: "router", Instance: "r"} })
	}()
	w.until("a router", func(v *fleet.View) bool { return len(v.Members) == 1 })
	for _, state := range []string{`{`, `[]`, `{"memory":7}`, `{"memory":{"sizes":{"n":-1},"works":{"n":-3},"tracks":[{"peaks":{"slot":-5}}]}}`, `{"memory":{"at":"2999-01-01T00:00:00Z"}}`} {
		h := &hands{pools: on()}
		m := h.pools["p"]
		m.State = []byte(state)
		h.pools["p"] = m
		s, p := w.still(h)
		for range 3 {
			report := []byte(`{"router":"r","pool":"p","started":1,"arrivals":3,"uncached_tokens":99,"engines":{}}`)
			if _, err := s.observer.Report(w.watcher.View(), report, time.Now()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.observer.Record(w.watcher.View(), "p", []byte(`{"prompt_tokens":9,"output_tokens":2,"status":200,"outcome":"ok"}`)); err != nil {
				t.Fatal(err)
			}
			s.tick(t.Context(), w.watcher.View(), time.Now())
		}
		if p.last.Roles == nil {
			t.Errorf("after state %s nothing is decided", state)
		}
	}
}

// An operator's mark that is set while a decision is carried out is the operator's.
func TestAMarkThatBecameAnOperatorsStays(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	s, p := w.still(&hands{pools: on()})
	var old *fleet.View
	for _, reason := range []string{replica.ReasonDrains, "maintenance"} {
		if err := fleet.Drain(t.Context(), w.conn, "p", "e1", fleet.DrainRecord{Since: time.Now(), Reason: reason}); err != nil {
			t.Fatal(err)
		}
		w.marked("e1", reason)
		if old == nil {
			old = w.watcher.View()
		}
	}
	p.managed.Policy.Mode = decide.Shadow
	s.takeBack(t.Context(), old, time.Now())
	entries, err := fleet.Watch(t.Context(), w.conn, s.cfg.Log) // reads all that there is now
	if err != nil {
		t.Fatal(err)
	}
	if got := entries.View().Drains["e1"].Reason; got != "maintenance" {
		t.Errorf("the mark is %q", got)
	}
}

// Two autoscalers heard the same routers for different times: who takes over goes on from the other's state, and must
// not take the difference of their sums for what came in the seconds between.
func TestWhoBeginsToDecideCountsFromZero(t *testing.T) {
	w := newWorld(t)
	w.engine("e1", fleet.Decode, fleet.OK)
	s, _ := w.still(&hands{pools: on()})
	for seq, arrivals := range []int{0, 1_000_000} {
		report := fmt.Sprintf(`{"router":"r","pool":"p","started":1,"seq":%d,"arrivals":%d}`, seq+1, arrivals)
		if _, err := s.observer.Report(w.watcher.View(), []byte(report), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.observer.Observe(w.watcher.View(), "p", time.Now()).Routers.Arrivals; got != 1_000_000 {
		t.Fatalf("heard of %v", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.observer.Observe(w.watcher.View(), "p", time.Now()).Routers.Arrivals; got != 0 {
		t.Errorf("counts from %v", got)
	}
}
