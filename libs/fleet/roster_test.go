package fleet

import (
	"testing"
	"time"
)

// timeline drives a roster by seconds.
type timeline struct {
	*testing.T
	r roster
	s int
}

func (l *timeline) to(second int, up bool) {
	l.Helper()
	for ; l.s < second; l.s++ {
		l.r.tick(time.Unix(int64(l.s+1), 0), up)
	}
}

func (l *timeline) alive(want bool) {
	l.Helper()
	if got := len(l.r.list()) == 1; got != want {
		l.Errorf("at second %d alive: %v, want %v", l.s, got, want)
	}
}

func (l *timeline) refresh() { l.r.put("index.a", Member{Service: "index", Instance: "a"}) }

func TestMemberDiesAfterThreePeriods(t *testing.T) {
	l := timeline{T: t}
	l.to(20, true)
	l.refresh()
	l.to(26, true)
	l.alive(true)
	l.to(27, true)
	l.alive(false)
}

// Who takes over from a member that was killed must not wait longer than one that has known it all along.
func TestNoGraceForWhoBeginsWhileNATSIsThere(t *testing.T) {
	l := timeline{T: t}
	l.to(1, true)
	l.refresh() // found on arrival
	l.to(7, true)
	l.alive(true)
	l.to(8, true)
	l.alive(false)
}

func TestAgesStandStillWhileNATSIsAwayAndForAGrace(t *testing.T) {
	l := timeline{T: t}
	l.to(20, true)
	l.refresh()
	l.to(24, true) // 4 s old
	l.to(600, false)
	l.alive(true)
	l.to(609, true) // back at 601, grace to 607, 6 s old
	l.alive(true)
	l.to(610, true)
	l.alive(false)
}

func TestRefreshInTheGraceCounts(t *testing.T) {
	l := timeline{T: t}
	l.to(20, true)
	l.refresh()
	l.to(600, false)
	l.to(605, true)
	l.refresh()
	l.to(613, true) // grace ends at 607
	l.alive(true)
	l.to(614, true)
	l.alive(false)
}

func TestExpiryAloneRemovesNobody(t *testing.T) {
	l := timeline{T: t}
	l.to(20, true)
	l.refresh()
	l.r.remove("index.a", true)
	l.alive(true)
	l.r.remove("index.a", false)
	l.alive(false)
}

func TestPutTellsWhatIsNew(t *testing.T) {
	var r roster
	m := Member{Service: "index", Instance: "a", Applied: 1}
	for i, want := range []bool{true, false, true} {
		if i == 2 {
			m.Applied = 2
		}
		if got := r.put("index.a", m); got != want {
			t.Errorf("put %d tells %v, want %v", i, got, want)
		}
	}
}
