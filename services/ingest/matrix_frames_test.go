package ingest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// Frames lost, repeated and out of order: all heal by replays of both forms, in one life, never partial.
func TestLostRepeatedAndReversedFrames(t *testing.T) {
	t.Parallel()
	lose := func(b *blockPool, n int) { b.e.pub.DropLive(n) }
	repeat := func(b *blockPool, n int) { b.e.pub.RepeatLive(n) }
	reverse := func(b *blockPool, n int) { b.e.pub.ReverseLive(n) }
	for name, faults := range map[string][]func(*blockPool, int){
		"lost": {lose}, "repeated": {repeat}, "reversed": {reverse}, "all of it": {lose, repeat, reverse},
	} {
		for _, legacy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/legacy=%v", name, legacy), func(t *testing.T) {
				t.Parallel()
				m := newMatrix(t)
				b := newBlockPool(t, 60, 1, kvwire.PublisherOptions{Legacy: legacy})
				m.ingest("a", b.e)
				b.publish(3)
				first := m.exact(b)
				for round := range 30 {
					n := 1 + b.r.IntN(6)
					faults[b.r.IntN(len(faults))](b, n)
					b.publish(n)
					if b.r.IntN(3) == 0 {
						b.publish(1)
					}
					if round%10 == 9 { // what was lost last is found by the check alone
						m.exact(b)
					}
				}
				if last := m.exactAndOK(b); last != first {
					t.Errorf("generation %d after %d", last, first)
				}
				m.neverPartial()
			})
		}
	}
}

// Replays that lose replies, end early or do not come heal with the next one.
func TestReplaysThatFailHealWithTheNext(t *testing.T) {
	t.Parallel()
	some := func(n int, end bool) func([]kvwire.Frame) ([]kvwire.Frame, bool) {
		return func(due []kvwire.Frame) ([]kvwire.Frame, bool) { return due[:min(n, len(due))], end }
	}
	for name, c := range map[string]struct {
		times int
		spoil func([]kvwire.Frame) ([]kvwire.Frame, bool)
	}{
		"end early, with the mark":    {4, some(3, true)},
		"end early, without the mark": {2, some(3, false)},
		"do not come":                 {2, some(0, false)},
		"a hole": {1, func(due []kvwire.Frame) ([]kvwire.Frame, bool) {
			return append(due[:2:2], due[min(5, len(due)):]...), true
		}},
		"a hole that moves": {6, func() func(due []kvwire.Frame) ([]kvwire.Frame, bool) {
			r := rand.New(rand.NewPCG(1, 1))
			return func(due []kvwire.Frame) ([]kvwire.Frame, bool) {
				i := min(2+r.IntN(3), len(due))
				return append(due[:i:i], due[min(i+1, len(due)):]...), true
			}
		}()},
		"each reply twice": {2, func(due []kvwire.Frame) (sent []kvwire.Frame, end bool) {
			for _, f := range due {
				sent = append(sent, f, f)
			}
			return sent, true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			m.times.check = time.Hour // the gap alone must heal it
			b := newBlockPool(t, 60, 2, kvwire.PublisherOptions{})
			m.ingest("a", b.e)
			b.publish(5)
			first := m.exact(b)
			eventually(t, "the first check", func() bool { return m.count("replays_total") >= 2 })
			b.e.pub.SpoilReplays(c.times, c.spoil)
			b.e.pub.DropLive(12)
			b.publish(14)
			if last := m.exactAndOK(b); last != first {
				t.Errorf("generation %d after %d", last, first)
			}
			m.neverPartial()
		})
	}
}

// What no replay gives is a gap that nothing fills: the engine is partial, keeps what is known of it, and is exact at
// the next clear.
func TestReplaysCutTwiceAtTheSamePlaceArePartial(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]bool{"with the mark": true, "without the mark": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			b := newBlockPool(t, 60, 3, kvwire.PublisherOptions{})
			m.ingest("a", b.e)
			b.publish(5)
			first := m.exact(b)
			b.e.pub.SpoilReplays(1000, func(due []kvwire.Frame) ([]kvwire.Frame, bool) { return due[:min(1, len(due))], end })
			b.e.pub.DropLive(2)
			b.publish(3)
			m.record(b.e, "partial", func(r fleet.Engine) bool {
				return r.State == fleet.Partial && strings.Contains(r.Why, "after sequence 4") && r.Generation == first
			})
			b.e.pub.SpoilReplays(0, nil)
			m.caughtUp(b)
			b.e.publish(b.clear())
			if last := m.exactAndOK(b); last != first {
				t.Errorf("generation %d after %d", last, first)
			}
		})
	}
}

// Replays that break off at the same place while the engine says nothing more: what is missing is known to be missing,
// until a replay gives it.
func TestReplaysThatBreakOffOfASilentEngineArePartial(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 60, 4, kvwire.PublisherOptions{})
	b.publish(10)
	b.e.pub.SpoilReplays(1000, func(due []kvwire.Frame) (sent []kvwire.Frame, end bool) {
		for _, f := range due {
			if f.Seq < 3 {
				sent = append(sent, f)
			}
		}
		return sent, false
	})
	m.ingest("a", b.e)
	m.record(b.e, "partial", func(r fleet.Engine) bool {
		return r.State == fleet.Partial && strings.Contains(r.Why, "after sequence 2")
	})
	b.e.pub.SpoilReplays(0, nil)
	m.exactAndOK(b)
}

// hears waits until the engine's frames arrive: without replays nothing else tells.
func (m *matrix) hears(b *blockPool) {
	m.t.Helper()
	before := m.count("bad_total", "reason=wrong_parts")
	eventually(m.t, "subscription", func() bool {
		b.e.pub.SendRaw([]byte("x"))
		return m.count("bad_total", "reason=wrong_parts") > before
	})
}

// Without a replay endpoint an engine is exact while its frames follow one another, be some repeated; a gap is partial
// until the next clear, which vLLM publishes together with what it stores next.
func TestWithoutReplayEndpoint(t *testing.T) {
	t.Parallel()
	for name, back := range map[string]float64{"": 0, "and the clock jumps back": 3600} {
		t.Run("a gap "+name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			b := newBlockPool(t, 60, 5, kvwire.PublisherOptions{})
			b.e.config.Replay = ""
			m.ingest("a", b.e)
			m.hears(b)
			b.publish(30)
			b.e.pub.RepeatLive(10)
			b.publish(20)
			first := m.exactAndOK(b)
			m.neverPartial()
			b.e.ts -= back
			b.publish(5)
			m.exactAndOK(b)
			b.e.ts -= back
			b.e.pub.DropLive(2)
			b.publish(8)
			m.record(b.e, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial && strings.Contains(r.Why, "lost") })
			m.caughtUp(b)
			b.e.publish(append(append(b.step(), b.clear()), b.step()...)...)
			b.publish(5)
			if last := m.exactAndOK(b); last != first {
				t.Errorf("generation %d after %d", last, first)
			}
		})
	}
}

// An engine that says nothing is ok, and so is one that answers nothing for a while and then goes on.
func TestPausedEngineGoesOn(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 60, 6, kvwire.PublisherOptions{})
	m.times.gone, m.times.replayIdle = 5*time.Second, 50*time.Millisecond
	m.ingest("a", b.e)
	b.publish(20)
	first := m.exactAndOK(b)
	checks := m.count("replays_total", "outcome=complete")
	eventually(t, "five checks", func() bool { return m.count("replays_total", "outcome=complete") >= checks+5 })
	for range 3 {
		b.e.down.Store(true)
		b.e.pub.SpoilReplays(1000, func([]kvwire.Frame) ([]kvwire.Frame, bool) { return nil, false })
		silent := m.count("replays_total", "outcome=silent")
		eventually(t, "checks without an answer", func() bool { return m.count("replays_total", "outcome=silent") >= silent+2 })
		b.publish(2) // were in its buffers when it stopped
		b.e.pub.SpoilReplays(0, nil)
		b.e.down.Store(false)
		b.publish(5)
		if g := m.exactAndOK(b); g != first {
			t.Errorf("generation %d after %d", g, first)
		}
	}
	m.neverPartial()
	if m.lives() != 1 {
		t.Errorf("%v lives", m.lives())
	}
}

// The engine's clock jumps back, alone, with frames lost, repeated or reversed, and when the engine restarts.
func TestClockOfTheEngineJumpsBack(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 60, 7, kvwire.PublisherOptions{})
	m.ingest("a", b.e)
	b.publish(10)
	first := m.exact(b)
	for i, fault := range []func(int){func(int) {}, b.e.pub.DropLive, b.e.pub.RepeatLive, b.e.pub.ReverseLive} {
		b.publish(1)
		b.e.ts -= 3600
		fault(4)
		b.publish(4)
		if i != 1 {
			b.publish(1)
		}
		if g := m.exactAndOK(b); g != first {
			t.Errorf("fault %d: generation %d after %d", i, g, first)
		}
	}
	for _, n := range []int{1, 40} { // shorter and longer than the life before
		b.e.ts -= 3600
		b.restart()
		b.publish(n)
		last := m.exactAndOK(b)
		if last == first {
			t.Error("the new life has the generation of the old one")
		}
		first = last
	}
	m.neverPartial()
}

// With the default delays, too, what only a check can find is healed within 30 s: a last frame that is lost, and a restart
// after which the engine says nothing.
func TestDefaultDelaysHealInTime(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	m.times = times{}
	lost, restarted := newBlockPool(t, 60, 8, kvwire.PublisherOptions{}), newBlockPool(t, 60, 9, kvwire.PublisherOptions{})
	m.ingest("a", lost.e, restarted.e)
	for _, b := range []*blockPool{lost, restarted} {
		b.publish(10)
		m.exactAndOK(b)
	}
	eventually(t, "the first checks", func() bool { return m.count("replays_total") >= 4 })
	began := time.Now()
	lost.e.pub.DropLive(1)
	lost.publish(1)
	restarted.restart()
	for _, b := range []*blockPool{lost, restarted} {
		m.exactAndOK(b)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("healed after %v", took)
	}
	m.neverPartial()
}
