package ingest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// A late joiner whose replay does not reach back is partial, never claims what is not held, and is exact once it has
// counted as many copies as the engine has blocks.
func TestLateJoinNeverOverClaimsAndBecomesExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			b := newBlockPool(t, 120, seed, kvwire.PublisherOptions{BufferSteps: 8})
			b.publish(150)
			m.ingest("a", b.e)
			first := m.record(b.e, "partial", func(r fleet.Engine) bool {
				return r.State == fleet.Partial && strings.Contains(r.Why, "joined at sequence 142")
			})
			m.neverOver(b)
			if _, unknown := m.wrongly(b); unknown == 0 {
				t.Error("nothing is unknown: the test shows nothing")
			}
			for rounds := 0; m.states.count("state=ok was=partial") == 0; rounds++ {
				if rounds == 400 {
					t.Fatal("never exact")
				}
				b.publish(4)
				m.neverOver(b)
			}
			if last := m.exactAndOK(b); last != first.Generation {
				t.Errorf("generation %d after %d", last, first.Generation)
			}
			b.publish(20)
			m.exactAndOK(b)
		})
	}
}

// What a late joiner hears of a chain whose beginning it does not know shows as soon as the beginning is announced again.
func TestLateJoinRootsChainsWhenTheirPrefixIsAnnouncedAgain(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 100, 1, kvwire.PublisherOptions{BufferSteps: 1})
	prompt := b.grow(8)
	b.e.publish(b.run(prompt[:3])...)
	b.e.publish(b.run(prompt[:5])...)
	m.ingest("a", b.e)
	m.record(b.e, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial })
	b.e.publish(b.run(prompt)...)
	m.neverOver(b)
	if got := m.depths(b.e, prompt); got != [2]int{0, 0} {
		t.Errorf("depths %v of a chain without its beginning", got)
	}
	b.e.publish(b.drop(prompt[2]), b.drop(prompt[1]), b.drop(prompt[0]))
	m.neverOver(b)
	b.e.publish(b.run(prompt[:3])...)
	m.neverOver(b)
	if got := m.depths(b.e, prompt); got != [2]int{8, 8} {
		t.Errorf("depths %v after the beginning was announced again", got)
	}
}

// A clear is no new life, whether it comes alone or among other events; a restart is one, after a clear as without.
func TestClearsAndRestarts(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 60, 2, kvwire.PublisherOptions{})
	m.ingest("a", b.e)
	b.publish(20)
	generation := m.exactAndOK(b)
	for range 3 {
		b.e.publish(b.clear())
		if g := m.exactAndOK(b); g != generation {
			t.Errorf("a clear began generation %d", g)
		}
		b.publish(20)
		b.e.publish(append(append(b.step(), b.clear()), b.step()...)...)
		b.publish(5)
		if g := m.exactAndOK(b); g != generation {
			t.Errorf("a clear began generation %d", g)
		}
		b.e.publish(b.clear())
		b.restart() // with sequences from 0 again
		b.publish(10)
		next := m.exactAndOK(b)
		if next <= generation {
			t.Errorf("generation %d of a new life, %d before", next, generation)
		}
		b.restart() // without a clear
		b.publish(40)
		generation = m.exactAndOK(b)
		if generation <= next {
			t.Errorf("generation %d of a new life, %d before", generation, next)
		}
	}
	m.neverPartial()
}

// The first frame that arrives of a restarted engine has just the sequence that is expected. Its process start tells, or
// that a check had no answer while it was down.
func TestRestartThatGoesOnWithTheExpectedSequence(t *testing.T) {
	t.Parallel()
	for name, sign := range map[string]bool{"process start": true, "no answer to a check": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			b := newBlockPool(t, 60, 3, kvwire.PublisherOptions{})
			m.ingest("a", b.e)
			b.publish(4)
			first := m.exactAndOK(b)
			if sign {
				b.e.started.Add(100)
			} else {
				b.e.pub.SpoilReplays(1000, func([]kvwire.Frame) ([]kvwire.Frame, bool) { return nil, false })
				eventually(t, "a check without an answer", func() bool { return m.count("replays_total", "outcome=silent") > 0 })
			}
			b.restart()
			b.e.pub.DropLive(4)
			b.publish(5)
			b.e.pub.SpoilReplays(0, nil)
			b.publish(3)
			if second := m.exactAndOK(b); second == first {
				t.Error("the new life has the generation of the old one")
			}
			m.neverPartial()
		})
	}
}

// A removal that is lost is replayed. One that cannot be leaves the engine partial, with just that block too much, until
// its next clear or life.
func TestLostRemoval(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*blockPool){
		"clear": func(b *blockPool) { b.e.publish(b.clear()) }, "restart": func(b *blockPool) { b.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			b := newBlockPool(t, 60, 4, kvwire.PublisherOptions{})
			m.ingest("a", b.e)
			b.publish(25)
			first := m.exactAndOK(b)
			b.e.pub.DropLive(1)
			b.e.publish(b.evict(5))
			if g := m.exactAndOK(b); g != first {
				t.Errorf("generation %d after %d", g, first)
			}
			m.neverPartial()
			b.e.pub.DropLive(1)
			b.e.publish(b.evict(len(b.gpu) - 1))
			b.e.pub.Forget()
			m.caughtUp(b)
			m.record(b.e, "partial", func(r fleet.Engine) bool {
				return r.State == fleet.Partial && strings.Contains(r.Why, "lost") && r.Generation == first
			})
			if claimed, unknown := m.wrongly(b); claimed != 1 || unknown != 0 {
				t.Errorf("%d blocks too much and %d too few, want 1 and 0", claimed, unknown)
			}
			end(b)
			b.publish(5)
			m.exactAndOK(b)
		})
	}
}

// replaced is another engine at the addresses of one that is stopped.
func replaced(t *testing.T, b *blockPool, model string) *blockPool {
	t.Helper()
	old := b.e
	old.http.Close()
	old.pub.Close()
	n := newBlockPool(t, b.capacity, 99, kvwire.PublisherOptions{})
	n.e.http.Close()
	n.e.pub.Close()
	pub, err := kvwire.Listen(old.config.Events, old.config.Replay, kvwire.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	l, err := net.Listen("tcp", strings.TrimPrefix(old.config.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	n.e.pub, n.e.config, n.e.id, n.e.model = pub, old.config, old.id, model
	n.e.started.Store(old.started.Load() + 50)
	n.e.http = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(n.e.serve)}}
	n.e.http.Start()
	t.Cleanup(n.e.http.Close)
	return n
}

// An address that another pod takes over holds nothing of the one before, be it of the same model or of another.
func TestAddressReusedByAnotherPod(t *testing.T) {
	t.Parallel()
	for _, next := range []string{model, "org/Other-2"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			b := newBlockPool(t, 60, 6, kvwire.PublisherOptions{})
			m.ingest("a", b.e)
			b.publish(20)
			first := m.exactAndOK(b)
			n := replaced(t, b, next)
			n.publish(15) // the same chains of hashes in part, as equal prompts have
			if g := m.exactAndOK(n); g <= first {
				t.Errorf("generation %d of another engine, %d before", g, first)
			}
			m.record(n.e, "of its pool", func(r fleet.Engine) bool { return r.Pool == fleet.PoolID(next) && len(r.Models) == 2 })
			kv, err := m.conn.KV(t.Context(), bus.Engines)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "one record of the address", func() bool {
				keys, err := kv.Keys(t.Context())
				return err == nil && len(keys) == 1 && strings.HasPrefix(keys[0], fleet.PoolID(next))
			})
			m.neverPartial()
		})
	}
}

// Two engines of one pool and one of another hold equal prompts: what one drops the others keep.
func TestEqualPromptsOfThreeEnginesAndTwoPools(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	var pools []*blockPool
	var engines []*engine
	for i := range 3 {
		b := newBlockPool(t, 60, 7, kvwire.PublisherOptions{}) // one seed: equal prompts
		if i == 2 {
			b.e.model = "org/Other-2"
		}
		pools, engines = append(pools, b), append(engines, b.e)
	}
	m.ingest("a", engines...)
	for _, b := range pools {
		b.publish(25)
	}
	for i, b := range pools {
		m.exactAndOK(b)
		for _, drop := range []func(){
			func() { b.e.publish(b.evict(0), b.evict(3), b.evict(len(b.gpu)-1)) },
			func() { b.e.publish(b.clear()) },
		} {
			drop()
			for _, all := range pools {
				m.exact(all)
			}
		}
		b.publish(10 + i)
	}
	for _, b := range pools {
		m.exactAndOK(b)
	}
	m.neverPartial()
}
