package ingest

import (
	"fmt"
	"time"
)

// A stamp names a batch. Two batches of one life differ in sequence; batches of two lives hardly ever agree in both.
type stamp struct {
	seq uint64
	ts  float64 // Unix seconds by the engine's clock; 0 where the batch could not be read
}

// A step is what a session must do next to know the engine's cache.
type step uint8

const (
	proceed   step = iota
	askReplay      // ask for a replay from life.from, then offer the frame in hand again
	judgeLife      // find out by other signs whether the process is the same, then call judged
)

// A verdict is what life says to a batch, to the end of a replay or to a sign: in this order.
type verdict struct {
	// reset, where not empty, says why a new life began: what was known is void. So are, where there are replays, all
	// frames received until now, as they may be of the old life; the replay that follows has those of the new one.
	reset string
	apply bool // fold the batch in hand
	next  step
}

// An outcome is how a replay ended.
type outcome uint8

const (
	complete outcome = iota // the engine said that it sent all
	cut                     // replies came, but not the end
	silent                  // nothing came
)

// A sign is what something else than sequences tells of the engine's process.
type sign uint8

const (
	noSign sign = iota
	sameProcess
	otherProcess
)

const (
	lostTwice    = 2                // replays that must fail to fill a gap before it counts as lost
	silenceLimit = 30 * time.Second // without an answer to replays, until other signs decide
)

// life decides what the batches of one engine mean: which to fold, when to ask for a replay, when a new life has begun
// and when the cache is known in part only. It is a pure state machine: no sockets, no clocks. The zero value, with
// replays set where the engine has a replay endpoint, waits for the first batch.
//
// A replay starts at the last applied batch, so its first reply tells whether the life is still the same.
type life struct {
	replays bool // the engine has a replay endpoint
	begun   bool // last is a batch of this life
	last    stamp
	partial string // why the cache is known in part only
	late    bool   // because batches before the first are missing: nothing held is unknown to be removed

	cause stamp // the frame for which replays were asked, and how often since anything was applied
	tries int
	jump  bool // whatever comes next is applied, since nothing can fill the gap before it
	// unsure that the life is the same, since a check got no answer: a restarted engine may go on with just the
	// sequence that is expected.
	unsure bool

	checking  bool // the replay under way is a routine check
	settled   bool // it has had its first reply
	progress  bool // it has brought batches to apply
	skip      bool // the rest of it is of no use, another is needed
	later     bool // it begins after the last applied batch
	holes     int  // replays in a row that had a hole after holeAt
	holeAt    stamp
	cuts      int // replays in a row that were cut after cutAt
	cutAt     stamp
	broken    bool      // partial because of that, until a replay goes on from there
	laterAt   stamp     // the last applied batch when a check's replay began after it
	askedFrom time.Time // when the first replay without an answer was asked
}

// from is the sequence at which the next replay starts.
func (l *life) from() uint64 {
	if l.begun {
		return l.last.seq
	}
	return 0
}

// live judges a batch from the SUB socket. A frame with a verdict to ask or judge is offered again afterwards.
func (l *life) live(f stamp) verdict {
	switch {
	case !l.begun && (f.seq == 0 || l.jump || !l.replays):
		return l.accept(f)
	case !l.begun:
		return l.gap(f)
	case l.unsure && !l.tried(f):
		return l.inquire()
	case f.seq == l.last.seq+1 && (f.ts >= l.last.ts || !l.replays):
		return l.accept(f)
	case f.seq > l.last.seq:
		return l.gap(f)
	case f.ts <= l.last.ts:
		return verdict{} // an old frame
	case !l.tried(f):
		return l.inquire()
	}
	l.jump = false
	return verdict{} // the life was found to be the same: the engine's clock jumped
}

// gap judges a batch that does not follow the last one, or claims to be older than it.
func (l *life) gap(f stamp) verdict {
	switch {
	case l.jump:
		return l.accept(f)
	case !l.tried(f):
		return l.inquire()
	case l.begun && f.ts < l.last.ts && l.replays:
		return verdict{} // it waited in our memory while a new life began
	case l.tries < lostTwice && l.replays:
		return l.inquire()
	}
	return l.accept(f)
}

// tried reports whether a replay for this very frame has been asked and has brought nothing since.
func (l *life) tried(f stamp) bool {
	if l.cause != f {
		l.cause, l.tries = f, 0
	}
	return l.tries > 0
}

func (l *life) inquire() verdict {
	l.tries++
	if l.replays {
		return verdict{next: askReplay}
	}
	return verdict{next: judgeLife}
}

// accept makes a batch the last applied one and notes what is missing before it.
func (l *life) accept(f stamp) verdict {
	l.mend()
	switch {
	case !l.begun && f.seq != 0:
		l.partial, l.late = fmt.Sprintf("joined at sequence %d: %s", f.seq, l.whyLate()), true
	case f.seq != l.last.seq+1 && l.begun:
		l.late = false
		l.partial = fmt.Sprintf("batches after sequence %d are lost", l.last.seq)
	}
	l.begun, l.last, l.jump, l.progress = true, f, false, true
	l.tries, l.holes = 0, 0
	return verdict{apply: true}
}

func (l *life) whyLate() string {
	if !l.replays {
		return "the engine has no replay endpoint"
	}
	return "the replay buffer begins later, or does not answer"
}

// ask notes that a replay from l.from is being asked. A check asks although nothing is amiss.
func (l *life) ask(check bool) {
	l.checking, l.settled, l.progress, l.skip, l.later = check, false, false, false, false
}

// reply judges one batch of the replay.
func (l *life) reply(f stamp) verdict {
	l.askedFrom = time.Time{}
	switch {
	case l.skip:
		return verdict{}
	case !l.settled:
		return l.firstReply(f)
	case f.seq <= l.last.seq:
		return verdict{}
	case f.seq == l.last.seq+1:
		return l.accept(f)
	case l.holes > 0 && l.holeAt == l.last:
		return l.accept(f) // the second replay with the same hole
	}
	l.holes, l.holeAt, l.skip = 1, l.last, true
	return verdict{}
}

// firstReply judges the batch at which the replay begins.
func (l *life) firstReply(f stamp) verdict {
	switch {
	case !l.begun:
		l.settled = true
		return l.accept(f)
	case f == l.last:
		l.settled, l.unsure = true, false
		return verdict{}
	case f.seq < l.last.seq:
		return verdict{} // not asked for
	case f.seq == l.last.seq:
		l.skip = true
		return l.newLife(fmt.Sprintf("another batch has sequence %d", f.seq))
	case l.jump:
		l.settled = true
		return l.accept(f)
	}
	l.skip, l.later = true, true
	return verdict{}
}

// end judges the end of a replay.
func (l *life) end(o outcome, now time.Time) verdict {
	switch {
	case o == silent && l.checking:
		l.unsure = l.begun
		return verdict{}
	case o == silent:
		if l.askedFrom.IsZero() {
			l.askedFrom = now
		}
		if now.Sub(l.askedFrom) < silenceLimit {
			return verdict{next: askReplay}
		}
		l.askedFrom = time.Time{}
		return verdict{next: judgeLife}
	case l.later && l.checking && l.laterAt != l.last:
		l.laterAt = l.last // what lies between may be in our memory: if the next check finds the same, it is lost
		return verdict{}
	case l.later:
		l.later = false
		return verdict{next: judgeLife}
	case l.skip:
		return verdict{next: askReplay}
	case o == cut:
		return l.breakOff()
	case !l.settled && l.begun && o == complete:
		v := l.newLife(fmt.Sprintf("the replay buffer ends before sequence %d", l.last.seq))
		v.next = askReplay
		return v
	default:
		l.mend() // whatever there was after the last applied batch has come
	}
	l.askedFrom = time.Time{}
	return verdict{}
}

// unread says that of the batch just applied not all could be read: a gap that nothing fills. why holds a %d for it.
func (l *life) unread(why string) {
	if l.late = false; l.partial == "" || l.broken {
		l.partial, l.broken = fmt.Sprintf(why, l.last.seq), false
	}
}

// known ends every partial state: the engine's events have told its whole cache.
func (l *life) known() { l.partial, l.late, l.broken = "", false, false }

// breakOff judges a replay that was cut. The second one at the same place has failed; a check that fails is made good
// by the next one.
func (l *life) breakOff() verdict {
	if l.cutAt != l.last {
		l.cutAt, l.cuts = l.last, 0
	}
	if l.cuts++; l.progress || l.cuts < lostTwice && !l.checking {
		return verdict{next: askReplay}
	}
	if l.cuts >= lostTwice && l.partial == "" {
		l.partial, l.broken = fmt.Sprintf("replays break off after sequence %d", l.last.seq), true
	}
	return verdict{}
}

// mend ends the state in which replays break off.
func (l *life) mend() {
	l.cuts = 0
	if l.broken {
		l.partial, l.broken = "", false
	}
}

// judged takes the answer to judgeLife.
func (l *life) judged(s sign) verdict {
	if s == sameProcess && l.unsure && l.cause.seq == l.last.seq+1 {
		l.unsure, l.later = false, false
		return verdict{} // the frame in hand follows: there is no gap
	}
	if s == sameProcess {
		l.unsure = false
		l.tries, l.jump = lostTwice, l.replays // with replays, what they give next is applied
		if l.skip && l.replays {
			return verdict{next: askReplay}
		}
		return verdict{}
	}
	answers := l.skip // the replay endpoint answered
	v := l.newLife("nothing tells that the engine's process is the same")
	l.jump = l.replays && !answers
	if answers {
		v.next = askReplay
	}
	return v
}

// restarted takes a positive sign that the engine's process is another one.
func (l *life) restarted() verdict {
	v := l.newLife("the engine's process is another")
	if l.replays {
		v.next = askReplay
	}
	return v
}

func (l *life) newLife(reason string) verdict {
	l.begun, l.last, l.partial, l.late, l.jump, l.unsure, l.broken = false, stamp{}, "", false, false, false, false
	l.cause, l.tries, l.holes, l.askedFrom = stamp{}, 0, 0, time.Time{}
	return verdict{reset: reason}
}
