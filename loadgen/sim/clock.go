package sim

import "time"

// event is something that happens at a virtual time. Of events at one time the one scheduled first comes first.
type event struct {
	at    time.Duration
	order uint64
	do    action
}

// action is what happens. Exactly one kind of it is meant; a closure for each token would cost more than the token.
type action struct {
	kind   kind
	engine int      // or router
	batch  *batch   // visible
	client *session // arrive
	news   *news    // heard
}

type kind uint8

const (
	arrive   kind = iota // a session's next turn is sent
	stepped              // an engine's step ends
	visible              // an engine's events reach the index
	scrape               // engines' metrics are read
	lost                 // an engine ends
	returned             // and is back with an empty cache
	missed               // the registry may see that it is gone
	moved                // KV may have reached its engine
	tell                 // a router tells its peers what has changed
	tellAll              // routers tell their peers all
	heard                // what a router told reaches its peers

	// Those where engines come and go.
	fed      // the next request arrives
	started  // a replica is ready
	reported // routers tell the autoscaler
	ticked   // which decides
	polled   // the router looks whether somebody may go on
)

// clock is a queue of events: a binary heap.
type clock struct {
	now    time.Duration
	events []event
	order  uint64
}

func (c *clock) at(t time.Duration, do action) {
	c.order++
	c.events = append(c.events, event{max(t, c.now), c.order, do})
	for i := len(c.events) - 1; i > 0; {
		up := (i - 1) / 2
		if !c.less(i, up) {
			break
		}
		c.events[i], c.events[up] = c.events[up], c.events[i]
		i = up
	}
}

func (c *clock) less(i, j int) bool {
	a, b := &c.events[i], &c.events[j]
	return a.at < b.at || a.at == b.at && a.order < b.order
}

// next takes the earliest event and moves the time to it.
func (c *clock) next() (do action, ok bool) {
	if len(c.events) == 0 {
		return action{}, false
	}
	first := c.events[0]
	last := len(c.events) - 1
	c.events[0], c.events[last] = c.events[last], event{}
	c.events = c.events[:last]
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < last && c.less(down, least) {
				least = down
			}
		}
		if least == i {
			break
		}
		c.events[i], c.events[least] = c.events[least], c.events[i]
		i = least
	}
	c.now = first.at
	return first.do, true
}
