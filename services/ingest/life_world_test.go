package ingest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// world is a model of an engine's publisher and of the session around life: what a session does, without sockets.
type world struct {
	l       life
	buffer  []stamp // what can be replayed
	truth   []stamp // all batches of the present life
	next    uint64
	clock   float64
	process int
	known   int  // the process that the session saw when the life began; 0 unknown
	signs   bool // the engine tells its process
	mute    int  // replays that get no answer
	dropAt  int  // the next replay loses the reply with this index; -1 none
	cutAt   int  // the next cuts replays break off before the reply with this index
	cuts    int
	inbox   []stamp
	applied []stamp
	log     []string
	replays int
	lives   int
	now     time.Time
}

func newWorld(replays, signs bool) *world {
	return &world{l: life{replays: replays}, signs: signs, process: 1, known: 1, dropAt: -1, clock: 1000, now: time.Unix(0, 0)}
}

func (w *world) publish(live bool) stamp {
	w.clock++
	f := stamp{w.next, w.clock}
	w.next++
	w.buffer, w.truth = append(w.buffer, f), append(w.truth, f)
	if live {
		w.inbox = append(w.inbox, f)
	}
	return f
}

func (w *world) restart() {
	w.buffer, w.truth, w.next = nil, nil, 0
	w.process++
}

func (w *world) act(v verdict, f stamp) {
	if v.reset != "" {
		w.log = append(w.log, "reset")
		w.applied, w.known = nil, 0
		if w.l.replays {
			w.inbox = nil
		}
		w.lives++
		if w.signs {
			w.known = w.process
		}
	}
	if v.apply {
		w.log = append(w.log, fmt.Sprint(f.seq))
		w.applied = append(w.applied, f)
	}
}

// settle does what a verdict asks for until nothing is left to do.
func (w *world) settle(next step, check bool) {
	for turn := 0; next != proceed; turn++ {
		if turn > 100 {
			panic("life never settles: " + strings.Join(w.log, " "))
		}
		var v verdict
		if next == judgeLife {
			w.log = append(w.log, "judge")
			s := noSign
			if w.signs && w.known != 0 {
				s = sameProcess
				if w.known != w.process {
					s = otherProcess
				}
			}
			v = w.l.judged(s)
		} else {
			w.log = append(w.log, fmt.Sprintf("replay@%d", w.l.from()))
			v = w.replay(check)
		}
		w.act(v, stamp{})
		next, check = v.next, false
	}
}

func (w *world) replay(check bool) verdict {
	w.replays++
	from := w.l.from()
	w.l.ask(check)
	if w.mute > 0 {
		w.mute--
		w.now = w.now.Add(5 * time.Second)
		return w.l.end(silent, w.now)
	}
	i := 0
	for _, f := range slices.Clone(w.buffer) {
		if f.seq < from {
			continue
		}
		if w.cuts > 0 && i == w.cutAt {
			w.cuts--
			if i == 0 {
				w.now = w.now.Add(5 * time.Second)
				return w.l.end(silent, w.now)
			}
			return w.l.end(cut, w.now)
		}
		if i != w.dropAt {
			w.act(w.l.reply(f), f)
		}
		i++
	}
	w.dropAt = -1
	return w.l.end(complete, w.now)
}

func (w *world) start() { w.settle(askReplay, false) }
func (w *world) check() { w.settle(askReplay, true) }

// deliver offers what is in the inbox.
func (w *world) deliver() {
	for len(w.inbox) > 0 {
		f := w.inbox[0]
		w.inbox = w.inbox[1:]
		lives := w.lives
		for turn := 0; w.lives == lives || !w.l.replays; turn++ {
			if turn > 100 {
				panic("frame is never done with: " + strings.Join(w.log, " "))
			}
			v := w.l.live(f)
			w.act(v, f)
			if v.next == proceed {
				break
			}
			w.settle(v.next, false)
		}
	}
}

func (w *world) publishN(n int, live bool) {
	for range n {
		w.publish(live)
	}
}
