package ingest

import "time"

// offset is the least difference between our clock and an engine's over the last minute or two.
type offset struct {
	since     time.Time
	now, then float64 // in this minute and in the one before
	in, had   bool
}

func (o *offset) add(received time.Time, ts float64) {
	if received.Sub(o.since) > time.Minute {
		o.then, o.had, o.in, o.since = o.now, o.in, false, received
	}
	d := float64(received.UnixNano())/1e9 - ts
	if !o.in || d < o.now {
		o.now, o.in = d, true
	}
}

func (o *offset) least(now time.Time) (seconds float64, ok bool) {
	switch {
	case now.Sub(o.since) > 2*time.Minute:
		return 0, false
	case o.in && o.had:
		return min(o.now, o.then), true
	}
	return o.now, o.in
}
