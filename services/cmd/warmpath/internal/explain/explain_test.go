package explain

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func TestWhen(t *testing.T) {
	zone := time.FixedZone("east", 3*3600)
	now := time.Date(2026, 3, 1, 0, 30, 15, 0, zone)
	for _, c := range []struct{ in, want string }{
		{"", "2026-03-01T00:30:15+03:00"},
		{"now", "2026-03-01T00:30:15+03:00"},
		{"10m", "2026-03-01T00:20:15+03:00"},
		{"0s", "2026-03-01T00:30:15+03:00"},
		{"1h30m", "2026-02-28T23:00:15+03:00"},
		{"00:30", "2026-03-01T00:30:00+03:00"},
		{"00:31", "2026-02-28T00:31:00+03:00"}, // yesterday
		{"23:59:30", "2026-02-28T23:59:30+03:00"},
		{"2026-01-02T15:04:05Z", "2026-01-02T15:04:05Z"},
		{"2026-01-02T15:04:05.5+01:00", "2026-01-02T15:04:05+01:00"},
	} {
		if got, err := When(c.in, now); err != nil || got.Format(time.RFC3339) != c.want {
			t.Errorf("%q is %v, %v; want %s", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"-5m", "25:00", "10", "yesterday", "2026-01-02", "12:5x"} {
		if got, err := When(in, now); err == nil {
			t.Errorf("%q is %v", in, got)
		}
	}
}

func FuzzWhen(f *testing.F) {
	f.Add("10m")
	f.Add("15:04")
	now := time.Date(2026, 3, 1, 0, 30, 15, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		at, err := When(s, now)
		if _, absolute := time.Parse(time.RFC3339, s); err == nil && absolute != nil && at.After(now) {
			t.Errorf("%q lies ahead: %v", s, at)
		}
	})
}

var begin = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func decided(second int, realisedAt int, came float64) *autoscaler.Record {
	d := decide.RoleDecision{Target: second, Model: decide.Learned{Startup: 60}}
	if came > 0 {
		d.Realised = &decide.Realised{At: begin.Add(time.Duration(realisedAt) * time.Second), Came: came}
	}
	return &autoscaler.Record{Pool: "p", Decision: decide.Decision{
		At: begin.Add(time.Duration(second) * time.Second), Roles: map[decide.Role]decide.RoleDecision{decide.Decode: d},
	}}
}

// What came of a decision is told by a later one, by that which speaks of the nearest time.
func TestTheRealisedValueIsThatOfTheNearest(t *testing.T) {
	for name, c := range map[string]struct {
		log  []*autoscaler.Record
		came float64 // 0 is not known
		read int     // decisions until no more is asked for; 0 is all
	}{
		"exact":              {[]*autoscaler.Record{decided(100, 0, 0), decided(130, 70, 1), decided(165, 95, 2), decided(170, 100, 3), decided(175, 105, 4)}, 3, 4},
		"before and after":   {[]*autoscaler.Record{decided(100, 0, 0), decided(160, 90, 2), decided(180, 120, 3)}, 2, 3},
		"after only":         {[]*autoscaler.Record{decided(100, 0, 0), decided(170, 104, 5), decided(175, 108, 6)}, 5, 2},
		"too far away":       {[]*autoscaler.Record{decided(100, 0, 0), decided(130, 39, 1), decided(300, 161, 2)}, 0, 3},
		"not yet":            {[]*autoscaler.Record{decided(100, 0, 0), decided(130, 0, 0)}, 0, 0},
		"never":              {[]*autoscaler.Record{decided(100, 0, 0), decided(339, 0, 0), decided(340, 0, 0), decided(341, 100, 9)}, 0, 3},
		"of an earlier life": {[]*autoscaler.Record{decided(50, 0, 0), decided(100, 40, 7), decided(170, 100, 3)}, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var f Found
			read := 0
			for _, r := range c.log {
				if read++; !f.fold(r, begin.Add(101*time.Second)) {
					break
				}
			}
			if f.Roles[decide.Decode].Target != 100 {
				t.Errorf("found the decision of second %d", f.Roles[decide.Decode].Target)
			}
			if got := f.Came[decide.Decode].Came; got != c.came {
				t.Errorf("came %v, want %v", got, c.came)
			}
			if c.read > 0 && read != c.read || c.read == 0 && read != len(c.log) {
				t.Errorf("read %d of %d", read, len(c.log))
			}
		})
	}
}

func TestParse(t *testing.T) {
	good := `{"v":1,"pool":"p","at":"2026-01-02T15:04:05Z","mode":"on","roles":{"decode":{"target":3}},"unknown":[1]}`
	r, err := Parse(bus.Message{Subject: bus.ScaleSubject("p"), Data: []byte(good)})
	if err != nil || r.Pool != "p" || !r.At.Equal(begin) || r.Roles[decide.Decode].Target != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	for subject, data := range map[string]string{
		bus.ScaleSubject("q"): good,
		bus.ScaleSubject("p"): strings.Replace(good, `"v":1`, `"v":2`, 1),
		bus.ScaleSubject("x"): `{"v":1,"pool":"x","roles":[]}`,
		bus.ScaleSubject("y"): ``,
	} {
		if r, err := Parse(bus.Message{Subject: subject, Data: []byte(data)}); err == nil {
			t.Errorf("%s on %s is %+v", data, subject, r)
		}
	}
}

// A terminal obeys nothing that a record says.
func TestSayIsClean(t *testing.T) {
	f := Found{Record: *decided(0, 0, 0)}
	d := f.Roles[decide.Decode]
	d.Rule, d.Blocked = "rule\x1b[2J", []string{"a\rb\u202e"}
	f.Roles[decide.Decode] = d
	f.Blind = "x\x07"
	var b strings.Builder
	if err := Say(&b, &f, "m\x1bodel", "", begin.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.ContainsAny(got, "\x1b\r\x07\u202e") || !strings.Contains(got, "rule?[2J") {
		t.Errorf("%q", got)
	}
	if err := Say(&b, &f, "m", decide.Prefill, begin); err == nil || !strings.Contains(fmt.Sprint(err), "only decode") {
		t.Errorf("a role that it has not: %v", err)
	}
}
