package door

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/policy"
	"github.com/warmpath/warmpath/services/router/queue"
)

const model = "org/model-7b"

// hall is a pool and its door, without any network: its engines take one request at a time.
type hall struct {
	Door
	pool *ledger.Pool
	view atomic.Pointer[fleet.View]

	waits, waited, shed atomic.Int64
}

func (h *hall) Waits(*Visit) { h.waits.Add(1) }

func (h *hall) Waited(_ *Visit, shed bool) {
	if h.waited.Add(1); shed {
		h.shed.Add(1)
	}
}

// staff sets how many engines there are.
func (h *hall) staff(engines int) {
	v := &fleet.View{Engines: map[string]fleet.Engine{}, Pools: map[string]fleet.Pool{"pool": {ID: "pool", Model: model}}}
	for i := range engines {
		id := fmt.Sprint("e", i)
		v.Engines[id] = fleet.Engine{ID: id, Pool: "pool", Role: fleet.Both, State: fleet.OK}
	}
	h.view.Store(v)
}

func newHall(engines int, ttl time.Duration) *hall {
	pick := func(s *policy.State, o *policy.Observation, random uint64, costs []float64) policy.Choice {
		return policy.Pick(policy.Warm, s, o, random, costs)
	}
	h := &hall{pool: ledger.NewPool("pool", pick, 1, time.Now())}
	h.staff(engines)
	h.Door = Door{
		Engines: h.pool, View: h.view.Load, Gate: ledger.GateFor(0, time.Microsecond), QueueTTL: ttl, Hold: time.Second, Counter: h,
		Limits: queue.Limits{Requests: 5000, TenantRequests: 2500},
	}
	return h
}

// pass is a request's way through the door and an engine that takes so long for it.
func (h *hall) pass(ctx context.Context, tenant string, took time.Duration) error {
	v := Visit{Tenant: tenant, Model: model, Arrived: time.Now(), Guess: Guess{Prompt: 100, Uncached: 100, Output: 10}}
	output := 0
	defer func() { v.Leave(output) }()
	if err := h.Enter(ctx, &v); err != nil || ctx.Err() != nil {
		return err
	}
	r, _ := h.pool.Reserve(h.View(), &ledger.Wish{Bytes: 400, Streams: true, Model: model, Gate: h.Gate}, time.Now())
	v.Booked(r.Uncached)
	time.Sleep(took)
	r.FirstByte(time.Now())
	h.Wake()
	output = 10
	r.Release(time.Now(), true, true)
	return nil
}

// While anybody waits no engine is idle, not for a moment; and all are served in the end.
func TestTheDoorKeepsEnginesBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(3, time.Hour)
		began := time.Now()
		var wait sync.WaitGroup
		for i := range 300 {
			wait.Go(func() {
				if err := h.pass(t.Context(), fmt.Sprint(i%7), 100*time.Millisecond); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("300 requests of 100 ms took three engines %v", took)
		}
		if h.Waiting() != (queue.Size{}) || h.unbooked != (ledger.Unbooked{}) || h.waits.Load() != h.waited.Load() || h.shed.Load() != 0 {
			t.Errorf("left %+v, %+v, %d of %d, %d shed", h.Waiting(), h.unbooked, h.waited.Load(), h.waits.Load(), h.shed.Load())
		}
	})
}

// A tenant that always has a hundred requests waiting does not keep another's from being served within a few slots.
func TestTheDoorStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(1, time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() {
				for ctx.Err() == nil {
					h.pass(ctx, "greedy", 10*time.Millisecond)
				}
			})
		}
		time.Sleep(5 * time.Second)
		for range 20 {
			began := time.Now()
			if err := h.pass(t.Context(), "polite", 10*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			// A turn of 4,096 tokens is 38 requests of 110.
			if waited := time.Since(began); waited > 400*time.Millisecond {
				t.Errorf("waited %v", waited)
			}
		}
		stop()
		wait.Wait()
	})
}

func TestWaitsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(1, 300*time.Millisecond)
		var wait sync.WaitGroup
		wait.Go(func() { h.pass(t.Context(), "a", time.Second) })
		synctest.Wait()
		began := time.Now()
		err := h.pass(t.Context(), "a", 0)
		if waited := time.Since(began); !errors.Is(err, ErrTooLong) || waited < 300*time.Millisecond || waited > 300*time.Millisecond+lookEvery {
			t.Errorf("%v after %v", err, waited)
		}
		h.staff(0)
		began = time.Now()
		if err := h.pass(t.Context(), "a", 0); !errors.Is(err, ErrNoEngine) || time.Since(began) < time.Second || time.Since(began) > time.Second+lookEvery {
			t.Errorf("without an engine: %v after %v", err, time.Since(began))
		}
		wait.Wait()
	})
}

// Who leaves between the door and an engine, or at the moment in which it is let in, gives its room back at once.
func TestWhoIsNeverBookedGivesItsRoomBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(1, time.Hour)
		for round := range 200 {
			ctx, leave := context.WithCancel(t.Context())
			first, second := Visit{Tenant: "a", Model: model, Guess: Guess{Uncached: 100}}, Visit{Tenant: "b", Model: model, Guess: Guess{Uncached: 10}}
			if err := h.Enter(ctx, &first); err != nil || h.unbooked != (ledger.Unbooked{Requests: 1, Tokens: 100}) {
				t.Fatalf("%v, %+v", err, h.unbooked)
			}
			var wait sync.WaitGroup
			wait.Go(func() {
				_ = h.Enter(ctx, &second) // nobody is left to be told
				second.Leave(0)
			})
			synctest.Wait()
			if h.Waiting().Requests != 1 {
				t.Fatal("two are inside")
			}
			leave()
			first.Leave(0) // which lets the second in, unless it has gone
			wait.Wait()
			if h.unbooked != (ledger.Unbooked{}) || h.Waiting() != (queue.Size{}) {
				t.Fatalf("round %d: %+v, %+v are left", round, h.unbooked, h.Waiting())
			}
		}
	})
}

// An engine that joins is found without anybody's call.
func TestAnEngineThatJoinsIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(0, time.Hour)
		time.AfterFunc(500*time.Millisecond, func() { h.staff(1) })
		began := time.Now()
		if err := h.pass(t.Context(), "a", 0); err != nil || time.Since(began) > 500*time.Millisecond+lookEvery {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// With room and an empty queue the door costs no allocation.
func TestTheOpenDoorAllocatesNothing(t *testing.T) {
	h := newHall(8, time.Hour)
	var v Visit
	n := testing.AllocsPerRun(100, func() {
		v = Visit{Model: model}
		if h.Enter(t.Context(), &v) != nil {
			t.Error("refused")
		}
		v.Booked(0)
		v.Leave(0)
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// A request that was let in and never booked has cost its tenant nothing: the next of the same tenant has its turn.
func TestWhatIsNotBookedIsRefunded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(1, time.Hour)
		var wait sync.WaitGroup
		wait.Go(func() { h.pass(t.Context(), "other", time.Second) })
		synctest.Wait()
		var order []string
		for _, who := range []string{"a1", "a2", "b1", "b2"} {
			wait.Go(func() {
				v := Visit{Tenant: who[:1], Model: model, Arrived: time.Now(), Guess: Guess{Prompt: 4000, Uncached: 4000}} // a turn pays for one
				defer v.Leave(0)
				if err := h.Enter(t.Context(), &v); err != nil {
					t.Error(err)
				}
				if order = append(order, who); who == "a1" {
					return // refused for what it is
				}
				r, _ := h.pool.Reserve(h.View(), &ledger.Wish{Bytes: 16_000, Streams: true, Model: model}, time.Now())
				v.Booked(r.Uncached)
				time.Sleep(time.Second)
				r.Release(time.Now(), true, true)
			})
			synctest.Wait()
		}
		wait.Wait()
		if got := fmt.Sprint(order); got != "[a1 a2 b1 b2]" {
			t.Errorf("served %s", got)
		}
	})
}
