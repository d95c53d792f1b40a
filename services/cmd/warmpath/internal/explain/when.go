package explain

import (
	"fmt"
	"time"
)

// When reads a time as people write it: RFC 3339, "15:04" or "15:04:05" of the last 24 hours in now's zone, or a
// duration, which is so long ago. Empty is now.
func When(s string, now time.Time) (time.Time, error) {
	if s == "" || s == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return time.Time{}, fmt.Errorf("time %q lies ahead: give how long ago, such as 10m", s)
		}
		return now.Add(-d), nil
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		clock, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		t := time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, now.Location())
		if t.After(now) {
			t = time.Date(now.Year(), now.Month(), now.Day()-1, clock.Hour(), clock.Minute(), clock.Second(), 0, now.Location())
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("time %q is none of: 2026-01-02T15:04:05Z, 15:04, 15:04:05, 10m (ago)", s)
}
