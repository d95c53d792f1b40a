package queue

import (
	"cmp"
	"slices"
	"time"
)

const (
	// Quantum is what a tenant may spend in each of its turns, in tokens. Two tenants that always have something waiting
	// are served alike but for Quantum and the dearest item of each (Shreedhar and Varghese, 1995).
	Quantum = 4096

	lateShare = 10                    // of so many slots one goes to the oldest late item
	leastWait = 50 * time.Millisecond // before an item is judged late
)

// band is the tenants of one priority, served by deficit round robin.
type band struct {
	priority int
	flows    map[string]*flow
	ring     []*flow // those with something waiting, in order of their turns
	at       int     // whose turn it is
}

// flow is what one tenant has waiting in a band.
type flow struct {
	tenant  string
	fresh   []*Item // can still meet their TTFT; in order of Push, as late ones are
	late    []*Item
	size    Size
	deficit int  // tokens that it may spend; below 0 it owes
	turn    bool // has had its quantum in this turn
	slots   int  // served to fresh items since the last late one
}

func (b *band) flow(tenant string) *flow {
	f := b.flows[tenant]
	if f == nil {
		f = &flow{tenant: tenant}
		b.flows[tenant] = f
	}
	return f
}

func (b *band) enter(f *flow, i *Item) {
	if f.size.Requests == 0 {
		b.ring = append(b.ring, f)
	}
	f.fresh = append(f.fresh, i)
	f.size.add(i)
}

// leave takes an item out of its flow, and an empty flow out of the ring.
func (b *band) leave(f *flow, i *Item) {
	f.fresh, f.late = without(f.fresh, i), without(f.late, i)
	if f.size.remove(i); f.size.Requests > 0 {
		return
	}
	at := slices.Index(b.ring, f)
	b.ring = slices.Delete(b.ring, at, at+1)
	if at < b.at {
		b.at--
	}
	if b.at >= len(b.ring) {
		b.at = 0
	}
	f.turn, f.slots, f.deficit = false, 0, min(f.deficit, 0)
	b.forget(f)
}

// forget drops flows with nothing waiting: all of them when the whole band is empty, as nobody then takes turns, else f
// where there are too many.
func (b *band) forget(f *flow) {
	switch {
	case len(b.ring) == 0:
		clear(b.flows)
	case f.size.Requests == 0 && len(b.flows) > len(b.ring)+maxIdle:
		delete(b.flows, f.tenant)
	}
}

func without(list []*Item, i *Item) []*Item {
	if at := slices.Index(list, i); at >= 0 {
		return slices.Delete(list, at, at+1)
	}
	return list
}

// next takes the item whose turn it is. Where nobody can pay for the first of its items that has room, all are given as
// many rounds at once as the nearest needs.
func (b *band) next(now time.Time) *Item {
	if len(b.ring) == 0 {
		return nil
	}
	began := b.ring[b.at].turn
	for {
		rounds := 0 // that the nearest needs; 0 is nobody
		for range len(b.ring) {
			f := b.ring[b.at]
			if i := f.first(now); i != nil {
				if !f.turn {
					f.turn, f.deficit = true, f.deficit+Quantum
				}
				if i.cost() <= f.deficit {
					b.take(f, i)
					return i
				}
				if n := (i.cost() - f.deficit + Quantum - 1) / Quantum; rounds == 0 || n < rounds {
					rounds = n
				}
			}
			f.turn = false
			b.at = (b.at + 1) % len(b.ring)
		}
		if rounds == 0 {
			b.ring[b.at].turn = began // nobody's turn has passed: who is in the middle of one gets no other
			return nil
		}
		for _, f := range b.ring {
			if f.first(now) != nil {
				f.deficit += (rounds - 1) * Quantum
			}
		}
	}
}

func (b *band) take(f *flow, i *Item) {
	f.deficit -= i.cost()
	if len(f.late) > 0 {
		if f.slots++; slices.Contains(f.late, i) {
			f.slots = 0
		}
	}
	b.leave(f, i)
}

// first is the item that the tenant is served next, of those with room; nil is none. Items that can still meet their
// TTFT come first, and of every lateShare slots one goes to the oldest that cannot.
func (f *flow) first(now time.Time) *Item {
	f.age(now)
	fresh, late := withRoom(f.fresh), withRoom(f.late)
	if fresh == nil || late != nil && f.slots >= lateShare-1 {
		return late
	}
	return fresh
}

func withRoom(list []*Item) *Item {
	for _, i := range list {
		if i.kind.room {
			return i
		}
	}
	return nil
}

// age moves items that cannot meet their TTFT any more to the late ones.
func (f *flow) age(now time.Time) {
	moved := false
	f.fresh = slices.DeleteFunc(f.fresh, func(i *Item) bool {
		late := !i.Late.IsZero() && now.After(i.Late) && now.Sub(i.Arrived) > leastWait
		if late {
			f.late, moved = append(f.late, i), true
		}
		return late
	})
	if moved {
		slices.SortFunc(f.late, func(a, b *Item) int { return cmp.Compare(a.number, b.number) })
	}
}

// newest is the item that was pushed last.
func (f *flow) newest() *Item {
	newest := (*Item)(nil)
	for _, list := range [2][]*Item{f.fresh, f.late} {
		if n := len(list); n > 0 && (newest == nil || list[n-1].number > newest.number) {
			newest = list[n-1]
		}
	}
	return newest
}

// longer says whether more of f waits than of g.
func (f *flow) longer(g *flow, byBytes bool) bool {
	a, b := int64(f.size.Requests), int64(g.size.Requests)
	if byBytes {
		a, b = f.size.Bytes, g.size.Bytes
	}
	return a > b || a == b && f.newest().number > g.newest().number
}
