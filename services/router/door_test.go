package router

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
	"github.com/warmpath/warmpath/services/router/internal/bodies"
	"github.com/warmpath/warmpath/services/router/ledger"
)

// newDoor is a pool whose engines take one request at a time, without any network.
func newDoor(t *testing.T, engines int, ttl time.Duration) *pool {
	t.Helper()
	rt, err := newRouter(Config{SLO: oneAtATime, QueueTTL: ttl, Hold: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	f := &stillFleet{}
	f.set(func(v *fleet.View) {
		for i := range engines {
			id := fmt.Sprint("e", i)
			v.Engines[id] = fleet.Engine{ID: id, Pool: poolRecord.ID, Role: fleet.Both, State: fleet.OK}
		}
	})
	rt.fleet = f
	return rt.pool(poolRecord.ID)
}

// pass is a request's way through the door and an engine that takes so long for it.
func (p *pool) pass(ctx context.Context, tenant string, took time.Duration) *openai.Error {
	q := &request{model: model, body: &bodies.Body{}, caller: caller{flow: tenant}, arrived: time.Now()}
	q.place.guess = guess{prompt: 100, uncached: 100, output: 10}
	defer q.left()
	if e := p.door.enter(ctx, q); e != nil || ctx.Err() != nil {
		return e
	}
	r, _ := p.Reserve(p.door.rt.fleet.View(), &ledger.Wish{Bytes: 400, Streams: true, Model: model, Gate: p.door.gate}, time.Now())
	q.booked(r.Uncached)
	time.Sleep(took)
	r.FirstByte(time.Now())
	p.door.wake()
	q.output = 10
	r.Release(time.Now(), true, true)
	return nil
}

// While anybody waits no engine is idle, not for a moment; and all are served in the end.
func TestTheDoorKeepsEnginesBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newDoor(t, 3, time.Hour)
		began := time.Now()
		var wait sync.WaitGroup
		for i := range 300 {
			wait.Go(func() {
				if e := p.pass(t.Context(), fmt.Sprint(i%7), 100*time.Millisecond); e != nil {
					t.Error(e)
				}
			})
		}
		wait.Wait()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("300 requests of 100 ms took three engines %v", took)
		}
		if p.door.queue.Size().Requests != 0 || p.door.unbooked != (ledger.Unbooked{}) || p.total.queued != 0 {
			t.Errorf("left %+v, %+v, %d", p.door.queue.Size(), p.door.unbooked, p.total.queued)
		}
	})
}

// A tenant that always has a hundred requests waiting does not keep another's from being served within a few slots.
func TestTheDoorStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newDoor(t, 1, time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() {
				for ctx.Err() == nil {
					p.pass(ctx, "greedy", 10*time.Millisecond)
				}
			})
		}
		time.Sleep(5 * time.Second)
		for range 20 {
			began := time.Now()
			if e := p.pass(t.Context(), "polite", 10*time.Millisecond); e != nil {
				t.Fatal(e)
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
		p := newDoor(t, 1, 300*time.Millisecond)
		var wait sync.WaitGroup
		wait.Go(func() { p.pass(t.Context(), "a", time.Second) })
		synctest.Wait()
		began := time.Now()
		e := p.pass(t.Context(), "a", 0)
		if waited := time.Since(began); e == nil || e.Code != codeQueueTTL || waited < 300*time.Millisecond || waited > 300*time.Millisecond+lookEvery {
			t.Errorf("%v after %v", e, waited)
		}
		p.door.rt.fleet.(*stillFleet).set(func(v *fleet.View) { clear(v.Engines) })
		began = time.Now()
		if e := p.pass(t.Context(), "a", 0); e == nil || e.Code != codeNoEngine || time.Since(began) < time.Second || time.Since(began) > time.Second+lookEvery {
			t.Errorf("without an engine: %v after %v", e, time.Since(began))
		}
		wait.Wait()
	})
}

// An engine that joins is found without anybody's call.
func TestAnEngineThatJoinsIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newDoor(t, 0, time.Hour)
		time.AfterFunc(500*time.Millisecond, func() {
			p.door.rt.fleet.(*stillFleet).set(func(v *fleet.View) {
				v.Engines["e0"] = fleet.Engine{ID: "e0", Pool: poolRecord.ID, Role: fleet.Both, State: fleet.OK}
			})
		})
		began := time.Now()
		if e := p.pass(t.Context(), "a", 0); e != nil || time.Since(began) > 500*time.Millisecond+lookEvery {
			t.Errorf("%v after %v", e, time.Since(began))
		}
	})
}

// With room and an empty queue the door costs no allocation.
func TestTheOpenDoorAllocatesNothing(t *testing.T) {
	p := newDoor(t, 8, time.Hour)
	q := &request{model: model, body: &bodies.Body{}}
	n := testing.AllocsPerRun(100, func() {
		q.place = place{}
		if p.door.enter(t.Context(), q) != nil {
			t.Error("refused")
		}
		q.booked(0)
		q.left()
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}
