package sim

import (
	"math"
	"slices"
	"time"
)

// Network is what KV moves through from a prefill to a decode engine: each engine sends and receives at Bandwidth, and
// shares it fairly among its transfers (max-min over both ends). The zero value is two links of 50 GB/s each engine,
// of which 70 % is had, and 1 ms of set-up a transfer.
type Network struct {
	Bandwidth float64       // bytes a second of one engine, each way; 0 is 70e9
	Setup     time.Duration // before the first byte; 0 is 1 ms, below 0 is none
}

const (
	defaultBandwidth = 2 * 50e9 * .7
	defaultSetup     = time.Millisecond
)

// flow is one transfer.
type flow struct {
	from, to int // engines
	begins   time.Duration
	left     float64 // bytes
	rate     float64 // bytes a second; 0 until it begins
	call     *call
}

// network is the transfers under way.
type network struct {
	Network
	clock *clock
	flows []*flow                // in the order in which they were asked for
	at    time.Duration          // when what is left of them was counted
	asked map[time.Duration]bool // to be called then
}

// move begins a transfer.
func (n *network) move(from, to, bytes int, c *call) {
	n.advance()
	n.flows = append(n.flows, &flow{from: from, to: to, begins: n.clock.now + n.Setup, left: float64(bytes), call: c})
	n.share()
}

// arrived takes out the transfers that have ended by now. Whoever hears of a time by the action moved must call it.
func (n *network) arrived() (done []*flow) {
	n.advance()
	delete(n.asked, n.clock.now)
	n.flows = slices.DeleteFunc(n.flows, func(f *flow) bool {
		ended := f.begins <= n.clock.now && f.left < .5
		if ended {
			done = append(done, f)
		}
		return ended
	})
	n.share()
	return done
}

// advance counts what has moved since the last time.
func (n *network) advance() {
	passed := (n.clock.now - n.at).Seconds()
	n.at = n.clock.now
	for _, f := range n.flows {
		f.left -= f.rate * passed
	}
}

// share gives each transfer that has begun its max-min fair rate: the end with the least bandwidth for each of its
// transfers settles theirs, and what they leave is shared on. The next time at which anything changes is scheduled.
func (n *network) share() {
	var open []*flow
	for _, f := range n.flows {
		f.rate = 0
		if f.begins <= n.clock.now {
			open = append(open, f)
		}
	}
	type end struct {
		engine int
		sends  bool
	}
	used := map[end]float64{}
	for len(open) > 0 {
		count := map[end]int{}
		for _, f := range open {
			count[end{f.from, true}]++
			count[end{f.to, false}]++
		}
		fair := func(e end) float64 { return (n.Bandwidth - used[e]) / float64(count[e]) }
		least, tightest := math.Inf(1), end{}
		for _, f := range open { // not over the map: its order is random
			for _, e := range [2]end{{f.from, true}, {f.to, false}} {
				if r := fair(e); r < least {
					least, tightest = r, e
				}
			}
		}
		open = slices.DeleteFunc(open, func(f *flow) bool {
			if (end{f.from, true}) != tightest && (end{f.to, false}) != tightest {
				return false
			}
			f.rate = least
			used[end{f.from, true}] += least
			used[end{f.to, false}] += least
			return true
		})
	}
	n.schedule()
}

// schedule asks to be called when the next transfer begins or ends, once for each time: who is called asks again.
func (n *network) schedule() {
	next := time.Duration(math.MaxInt64)
	for _, f := range n.flows {
		if f.rate == 0 {
			next = min(next, f.begins)
		} else {
			next = min(next, n.clock.now+time.Duration(math.Ceil(max(0, f.left)/f.rate*1e9)))
		}
	}
	if len(n.flows) == 0 || n.asked[next] {
		return
	}
	if n.asked == nil {
		n.asked = map[time.Duration]bool{}
	}
	n.asked[next] = true
	n.clock.at(next, action{kind: moved})
}
