package decide

import (
	"fmt"
	"math"
	"time"
)

const (
	orderShows  = 30 * time.Second  // after which an order that does not show was not carried out
	adoptFor    = time.Minute       // that what others ordered stands
	belowFor    = 3 * time.Minute   // that fewer must have been enough
	settleFirst = 150 * time.Second // after the beginning
	stepDown    = .25
	strict      = 1.3 // headroom where nothing is learned
	doubtful    = .5  // confidence
	mostLeaving = 64
)

func roles() [3]Role { return [3]Role{Prefill, Decode, Both} }

// track is what is remembered of one role.
type track struct {
	Known     bool      `json:"known"`
	Seen      int       `json:"seen"`    // ordered, as read last
	Ordered   int       `json:"ordered"` // by us, while it does not show yet:
	OrderedAt time.Time `json:"orderedAt"`
	Leaving   []string  `json:"leaving,omitempty"` // drained engines whose end is ordered
	UpAt      time.Time `json:"upAt"`
	BelowAt   time.Time `json:"belowAt"` // since when fewer are needed; zero is not
	Below     int       `json:"below"`   // the most that were needed since
	AdoptedAt time.Time `json:"adoptedAt"`
	Need      float64   `json:"need"` // busy replicas at the horizon
	Proven    float64   `json:"proven"`
	Peaks     peaks     `json:"peaks"`
	Forecasts peaks     `json:"forecasts"`
	Startups  startups  `json:"startups"`
}

// running is what there is of a role.
type running struct {
	now      int // ordered, less those that drain
	draining int
	ready    int // that do not drain
	coming   int // on their way
	stuck    int // will not come by themselves, or are overdue
	hopeless int // of these, no node takes them
	starting []Starting
	adopted  bool // others ordered it lately
}

// read learns what runs. What was ordered and does not show yet counts for a while; what others ordered is adopted.
func (t *track) read(r *Replicas, engines []Engine, role Role, startup float64, now time.Time) running {
	if r.fresh(now) {
		outstanding := !t.OrderedAt.IsZero()
		switch {
		case !t.Known:
		case outstanding && r.Desired == t.Ordered:
			t.OrderedAt = time.Time{}
		case outstanding && between(r.Desired, t.Seen, t.Ordered):
			if now.Sub(t.OrderedAt) > orderShows {
				t.OrderedAt, t.Leaving = time.Time{}, nil
			}
		case r.Desired != t.Seen:
			t.AdoptedAt, t.OrderedAt, t.Leaving = now, time.Time{}, nil
		}
		t.Known, t.Seen = true, min(r.Desired, most)
	}
	n := running{starting: r.Starting}
	desired := t.Seen
	if !t.OrderedAt.IsZero() {
		desired = t.Ordered
	}
	t.leave(engines)
	for i := range engines {
		if e := &engines[i]; e.Role == role && e.Draining && !contains(t.Leaving, e.ID) {
			n.draining++
		}
	}
	n.draining = min(n.draining, desired)
	n.now, n.ready = desired-n.draining, max(min(r.Ready, most)-n.draining, 0)
	if missing := desired - r.Ready - len(r.Starting); missing > 0 { // ordered, and not even created
		if now.Sub(t.UpAt).Seconds() <= 2*startup {
			n.coming += missing
		} else {
			n.stuck, n.hopeless = missing, missing
		}
	}
	for i := range r.Starting {
		x := &r.Starting[i]
		switch {
		case x.Stuck != "":
			n.stuck++
			if x.Stuck == "Unschedulable" {
				n.hopeless++
			}
		case now.Sub(x.Created).Seconds() > 2*startup:
			n.stuck++
		default:
			n.coming++
		}
	}
	n.stuck = min(n.stuck, n.now)
	n.hopeless = min(n.hopeless, n.stuck)
	n.adopted = !t.AdoptedAt.IsZero() && now.Sub(t.AdoptedAt) < adoptFor
	return n
}

func between(x, a, b int) bool { return x >= min(a, b) && x <= max(a, b) }

// leave forgets those that have gone.
func (t *track) leave(engines []Engine) {
	if len(t.Leaving) == 0 {
		return
	}
	var still []string
	for _, id := range t.Leaving {
		for i := range engines {
			if engines[i].ID == id {
				still = append(still, id)
				break
			}
		}
	}
	t.Leaving = still
}

func contains(all []string, id string) bool {
	for _, x := range all {
		if x == id {
			return true
		}
	}
	return false
}

// ordered remembers what was asked for.
func (t *track) ordered(step *Step, now time.Time) {
	t.Ordered, t.OrderedAt = step.To, now
	if len(step.Victims) == 0 {
		return
	}
	leaving := append([]string(nil), t.Leaving...)
	leaving = append(leaving, step.Victims...)
	t.Leaving = leaving[max(0, len(leaving)-mostLeaving):]
}

// instead is how many replicas are ordered for those that do not come: at most a quarter of what is needed, and none
// where no node would take them.
func (n *running) instead(need int) int {
	return min(n.stuck-n.hopeless, max(1, need/4))
}

// down says how many replicas remain when n are enough, and what speaks against fewer.
func (t *track) down(n int, run *running, c *caution, now time.Time) (int, string) {
	if n >= run.now {
		t.BelowAt = time.Time{}
		return run.now, ""
	}
	if t.BelowAt.IsZero() || t.BelowAt.After(now) {
		t.BelowAt, t.Below = now, 0
	}
	t.Below = max(t.Below, n)
	switch {
	case c.why != "":
		return run.now, c.why
	case run.coming > 0:
		return run.now, fmt.Sprintf("%d start", run.coming)
	case c.idle:
		return n, ""
	case !t.UpAt.IsZero() && now.Sub(t.UpAt).Seconds() < c.startup:
		return run.now, fmt.Sprintf("more were ordered %.0f s ago", now.Sub(t.UpAt).Seconds())
	case now.Sub(t.BelowAt) < belowFor:
		return run.now, fmt.Sprintf("fewer are enough since %.0f s only", now.Sub(t.BelowAt).Seconds())
	}
	n, t.BelowAt, t.Below = t.Below, now, n // the next step is to wait as long
	return max(n, run.now-max(1, int(stepDown*float64(run.now)))), ""
}

// prove keeps the greatest demand that a replica was seen to bear, a minute after the latest order, and says how many
// bear so much while the model is in doubt: all there are, where nothing is proven. 0 is no such wish.
func (t *track) prove(held float64, run *running, misses, sure float64, now time.Time) int {
	quiet := t.UpAt.IsZero() || now.Sub(t.UpAt) > time.Minute
	if misses < .01 && run.ready > 0 && run.coming == 0 && quiet {
		t.Proven = max(t.Proven, t.Need/float64(run.ready))
	}
	switch {
	case sure >= doubtful:
		return 0
	case t.Proven <= 0:
		return run.now
	}
	return int(min(math.Ceil(held/t.Proven), float64(run.now)))
}

// settled says whether what was ordered last is there, and had time to show what it is worth.
func (t *track) settled(run *running, c *caution, now time.Time) bool {
	return run.coming == 0 && !run.adopted && (t.UpAt.IsZero() || now.Sub(t.UpAt).Seconds() >= c.startup)
}

// caution is what speaks against fewer replicas beside what runs.
type caution struct {
	why     string
	startup float64 // seconds
	idle    bool    // nobody is served: all may go at once
}
