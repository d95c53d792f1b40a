package ingest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestLifeScenarios(t *testing.T) {
	for name, c := range map[string]struct {
		replays, signs bool
		do             func(w *world)
		log            string
		partial        string // a part of it; empty for exact
	}{
		"from the start": {true, true, func(w *world) {
			w.start()
			w.publishN(3, true)
			w.deliver()
		}, "replay@0 0 1 2", ""},
		"late join that the buffer reaches": {true, true, func(w *world) {
			w.publishN(3, false)
			w.start()
			w.publishN(1, true)
			w.deliver()
		}, "replay@0 0 1 2 3", ""},
		"late join that it does not reach": {true, true, func(w *world) {
			w.publishN(3, false)
			w.buffer = w.buffer[2:]
			w.start()
		}, "replay@0 2", "joined at sequence 2"},
		"a gap is filled": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.publishN(3, false)
			w.publishN(1, true)
			w.deliver()
		}, "replay@0 0 1 replay@1 2 3 4 5", ""},
		"frames that the replay has given come again": {true, true, func(w *world) {
			w.start()
			w.publishN(1, true)
			w.publishN(1, false)
			w.publishN(4, true)
			w.deliver()
		}, "replay@0 0 replay@0 1 2 3 4 5", ""},
		"a gap that begins before the buffer, same process": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.publishN(3, false)
			w.publishN(1, true)
			w.buffer = w.buffer[4:]
			w.deliver()
		}, "replay@0 0 1 replay@1 judge replay@1 4 5", "batches after sequence 1 are lost"},
		"the same, another process": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.restart()
			w.publishN(5, false)
			w.publishN(1, true)
			w.buffer = w.buffer[4:]
			w.deliver()
		}, "replay@0 0 1 replay@1 judge reset replay@0 4 5", "joined at sequence 4"},
		"the same, nothing tells": {true, false, func(w *world) {
			w.known = 0
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.publishN(3, false)
			w.publishN(1, true)
			w.buffer = w.buffer[4:]
			w.deliver()
		}, "replay@0 0 1 replay@1 judge reset replay@0 4 5", "joined at sequence 4"},
		"a restart": {true, true, func(w *world) {
			w.start()
			w.publishN(4, true)
			w.deliver()
			w.restart()
			w.publishN(2, true)
			w.deliver()
		}, "replay@0 0 1 2 3 replay@3 reset replay@0 0 1", ""},
		"a restart whose frames have passed the last one": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.restart()
			w.publishN(4, false)
			w.publishN(1, true)
			w.deliver()
		}, "replay@0 0 1 replay@1 reset replay@0 0 1 2 3 4", ""},
		"old frames in memory when a new life begins": {true, true, func(w *world) {
			w.start()
			w.publishN(3, true)
			w.deliver()
			w.publishN(4, true) // sequences 3 to 6, still in the inbox
			w.restart()
			w.publishN(2, true)
			w.inbox = append(w.inbox[4:], w.inbox[:4]...)
			w.deliver()
			w.publishN(1, true)
			w.deliver()
		}, "replay@0 0 1 2 replay@2 reset replay@0 0 1 2", ""},
		"a restart while idle, found by the check": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.restart()
			w.check()
		}, "replay@0 0 1 replay@1 reset replay@0", ""},
		"a sign that the process is another": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.restart()
			w.publishN(3, false)
			v := w.l.restarted()
			w.act(v, stamp{})
			w.settle(v.next, false)
		}, "replay@0 0 1 reset replay@0 0 1 2", ""},
		"the last frame is lost, found by the check": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.publishN(1, false)
			w.deliver()
			w.check()
		}, "replay@0 0 1 replay@1 2", ""},
		"a check without an answer changes nothing": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.mute = 1
			w.check()
			w.publishN(1, true)
			w.deliver()
		}, "replay@0 0 1 replay@1 replay@1 2", ""},
		"a check that finds the buffer beyond frames in memory": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.publishN(5, true)
			w.buffer = w.buffer[5:]
			w.check()
			w.deliver()
			w.check()
		}, "replay@0 0 1 replay@1 2 3 4 5 6 replay@6", ""},
		"the same after a check without an answer": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.mute = 1
			w.check()
			w.publishN(5, true)
			w.buffer = w.buffer[5:]
			w.deliver()
		}, "replay@0 0 1 replay@1 replay@1 judge 2 3 4 5 6", ""},
		"checks that find the buffer beyond frames that never came": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.publishN(5, false)
			w.buffer = w.buffer[5:]
			w.check()
			w.check()
		}, "replay@0 0 1 replay@1 replay@1 judge replay@1 5 6", "after sequence 1 are lost"},
		"a restart that goes on with the expected sequence": {true, false, func(w *world) {
			w.known = 0
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.mute = 1
			w.check() // while the engine is down
			w.restart()
			w.publishN(2, false)
			w.publishN(2, true)
			w.deliver()
		}, "replay@0 0 1 replay@1 replay@1 reset replay@0 0 1 2 3", ""},
		"a hole in the replay that a second one fills": {true, true, func(w *world) {
			w.publishN(4, false)
			w.dropAt = 2
			w.start()
		}, "replay@0 0 1 replay@1 2 3", ""},
		"replays that break off at the same place": {true, true, func(w *world) {
			w.publishN(6, false)
			w.cutAt, w.cuts = 1, 9
			w.start()
		}, "replay@0 0 replay@0", "replays break off after sequence 0"},
		"replays that break off, until one goes on": {true, true, func(w *world) {
			w.publishN(6, false)
			w.cutAt, w.cuts = 1, 3
			w.start()
			w.check()
			w.check()
		}, "replay@0 0 replay@0 replay@0 replay@0 1 2 3 4 5", ""},
		"a live gap before which replays break off": {true, true, func(w *world) {
			w.start()
			w.publishN(1, true)
			w.deliver()
			w.publishN(2, false)
			w.publishN(1, true)
			w.cutAt, w.cuts = 1, 99
			w.deliver()
		}, "replay@0 0 replay@0 replay@0 replay@0 3", "after sequence 0 are lost"},
		"a sequence that no batch has": {true, true, func(w *world) {
			w.publishN(2, false)
			w.next++
			w.publishN(2, false)
			w.start()
		}, "replay@0 0 1 replay@1 3 4", "batches after sequence 1 are lost"},
		"a live gap where the buffer keeps nothing": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.deliver()
			w.publishN(1, false)
			w.publishN(1, true)
			w.buffer = w.buffer[1:2] // the last applied one only
			w.deliver()
		}, "replay@0 0 1 replay@1 replay@1 3", "batches after sequence 1 are lost"},
		"silence for 30 s, same process": {true, true, func(w *world) {
			w.start()
			w.publishN(1, true)
			w.publishN(1, false)
			w.publishN(1, true)
			w.mute = 7
			w.deliver()
		}, "replay@0 0 replay@0 replay@0 replay@0 replay@0 replay@0 replay@0 replay@0 judge 2", "batches after sequence 0 are lost"},
		"silence from the start": {true, false, func(w *world) {
			w.publishN(3, false)
			w.mute = 7
			w.start()
			w.publishN(1, true)
			w.deliver()
		}, "replay@0 replay@0 replay@0 replay@0 replay@0 replay@0 replay@0 judge reset 3", "joined at sequence 3"},
		"the engine's clock goes back": {true, true, func(w *world) {
			w.start()
			w.publishN(2, true)
			w.clock = 10
			w.publishN(2, true)
			w.deliver()
		}, "replay@0 0 1 replay@1 2 3", ""},
		"without replays, from the start": {false, true, func(w *world) {
			w.publishN(3, true)
			w.deliver()
		}, "0 1 2", ""},
		"without replays, late": {false, true, func(w *world) {
			w.publishN(3, false)
			w.publishN(2, true)
			w.deliver()
		}, "3 4", "joined at sequence 3"},
		"without replays, gap in one process": {false, true, func(w *world) {
			w.publishN(2, true)
			w.publishN(2, false)
			w.publishN(2, true)
			w.deliver()
		}, "0 1 judge 4 5", "batches after sequence 1 are lost"},
		"without replays, a gap over which the engine's clock goes back": {false, true, func(w *world) {
			w.publishN(2, true)
			w.publishN(2, false)
			w.clock = 10
			w.publishN(2, true)
			w.deliver()
		}, "0 1 judge 4 5", "batches after sequence 1 are lost"},
		"without replays, restart": {false, true, func(w *world) {
			w.publishN(2, true)
			w.deliver()
			w.restart()
			w.publishN(2, true)
			w.deliver()
		}, "0 1 judge reset 0 1", ""},
		"without replays, gap and no sign": {false, false, func(w *world) {
			w.known = 0
			w.publishN(2, true)
			w.publishN(2, false)
			w.publishN(2, true)
			w.deliver()
		}, "0 1 judge reset 4 5", "joined at sequence 4"},
		"batches that cannot be read use up their sequences": {true, true, func(w *world) {
			w.start()
			w.publishN(1, true)
			for range 2 {
				f := stamp{seq: w.next}
				w.next++
				w.buffer, w.truth, w.inbox = append(w.buffer, f), append(w.truth, f), append(w.inbox, f)
			}
			w.publishN(1, true)
			w.deliver()
		}, "replay@0 0 replay@0 1 2 3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(c.replays, c.signs)
			c.do(w)
			if got := strings.Join(w.log, " "); got != c.log {
				t.Errorf("it did   %s\nwant     %s", got, c.log)
			}
			if (c.partial == "") != (w.l.partial == "") || !strings.Contains(w.l.partial, c.partial) {
				t.Errorf("partial %q, want %q", w.l.partial, c.partial)
			}
			if w.l.partial == "" && !slices.Equal(w.applied, w.truth) {
				t.Errorf("exact, but applied %v of %v", w.applied, w.truth)
			}
		})
	}
}

// Whatever is lost, delayed or restarted: after the faults and one check, an engine that is not partial is exact.
func TestLifeAgainstModel(t *testing.T) {
	partial := 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(r.IntN(5) > 0, r.IntN(2) == 0)
		capacity := 3 + r.IntN(20)
		if w.l.replays {
			w.start()
		}
		for range 40 {
			switch r.IntN(12) {
			case 0:
				if !w.signs && w.l.replays { // then it must be down long enough for a check to notice
					w.deliver()
					w.mute = 1
					w.check()
				}
				w.restart()
			case 1:
				w.publishN(r.IntN(6), false)
			case 2:
				w.inbox = nil
			case 3:
				if w.dropAt = r.IntN(4); r.IntN(2) == 0 {
					w.dropAt, w.cutAt, w.cuts = -1, r.IntN(4), r.IntN(4)
				}
			case 4:
				w.mute = r.IntN(9)
			case 5:
				if w.l.replays {
					w.check()
				}
			case 6:
				if r.IntN(4) == 0 {
					w.next++
				}
			case 7, 8:
				w.deliver()
			default:
				w.publishN(1+r.IntN(3), true)
			}
			if n := len(w.buffer) - capacity; n > 0 {
				w.buffer = w.buffer[n:]
			}
		}
		w.mute, w.dropAt, w.cuts = 0, -1, 0
		w.deliver()
		if w.signs && w.known != w.process && w.known != 0 {
			v := w.l.restarted()
			w.act(v, stamp{})
			w.settle(v.next, false)
		}
		if w.l.replays {
			w.check()
			w.check()
		}
		if w.l.partial != "" {
			partial++
			continue
		}
		if w.l.replays && !slices.Equal(w.applied, w.truth) {
			t.Fatalf("seed %d: exact, but applied %v of %v\n%s", seed, w.applied, w.truth, strings.Join(w.log, " "))
		}
	}
	t.Logf("%d of 20000 ended partial", partial)
	if partial > 16_000 {
		t.Errorf("%d of 20000 ended partial", partial)
	}
}
