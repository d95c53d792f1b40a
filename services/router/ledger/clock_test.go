package ledger

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/warmpath/warmpath/services/router/policy"
)

// jumped is what time.Now would have said at t, had somebody set the wall clock on by so much: the monotonic clock,
// which a time.Time has beside, goes on as it was.
func jumped(t time.Time, by time.Duration) time.Time {
	type stamp struct { // time.Time: bit 63 of wall says that ext is the monotonic clock; seconds lie above 30 bits
		wall uint64
		ext  int64
		loc  *time.Location
	}
	(*stamp)(unsafe.Pointer(&t)).wall += uint64(by/time.Second) << 30
	return t
}

// TestClockJumpsChangeNothing runs one sequence with a steady wall clock and with one that jumps by hours, forth and
// back: ejections, probes, placements, scrapes, peers and choices are the same.
func TestClockJumpsChangeNothing(t *testing.T) {
	start := time.Now()
	if j := jumped(start, -time.Hour); j.Sub(start) != 0 || start.Unix()-j.Unix() != 3600 {
		t.Fatalf("%v does not jump to %v", start, j)
	}
	run := func(jump func(step int) time.Duration) (said string) {
		p, view := NewPool(poolRecord.ID, named(policy.Warm), 1, start), viewOf(4)
		var live []*Reservation
		for step := range 400 {
			now := jumped(start.Add(time.Duration(step)*50*time.Millisecond), jump(step))
			if step%40 == 0 {
				p.Scraped("e01", Scrape{Usage: .5, Tokens: float64(step)}, now)
			}
			if step < 100 && step%10 == 0 {
				if err := p.Hear(view, &News{Router: "a", Life: 1, Seq: uint64(step + 1), Entries: []Entry{{Engine: "e02", Active: 3}}}, now); err != nil {
					t.Fatal(err)
				}
			}
			r, d := p.Reserve(view, wishOf(keysOf(uint64(step%9), 20+step%50), nil, step%3 > 0), now)
			said += fmt.Sprintln(step, d.Engine.ID, d.Reason, d.Costs, p.Peers(now), p.Size())
			if live = append(live, r); step%2 == 0 {
				continue
			}
			switch r = live[0]; {
			case step%7 == 0:
				said += fmt.Sprintln(r.Failed(now))
			default:
				r.FirstByte(now)
				r.Token(1, 0)
			}
			probe, stop := p.Watch(now)
			said += fmt.Sprintln(len(probe), len(stop))
			r.Release(now, true, step%7 > 0)
			live = live[1:]
		}
		return said
	}
	steady := run(func(int) time.Duration { return 0 })
	for name, jump := range map[string]func(int) time.Duration{
		"forth":          func(step int) time.Duration { return time.Duration(step/100) * time.Hour },
		"back":           func(step int) time.Duration { return -time.Duration(step/100) * time.Hour },
		"forth and back": func(step int) time.Duration { return time.Duration(step%2) * time.Hour },
	} {
		if run(jump) != steady {
			t.Errorf("a wall clock that goes %s changes choices", name)
		}
	}
}
