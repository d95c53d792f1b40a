// Package queue is where requests wait until the pool has room: bands of priority, in a band the tenants in turn by
// tokens, in a tenant's turn the order of service. It is bounded, and says who is shed.
//
// It is pure: no clock, no goroutines, no locks, no I/O. Time is an argument, and whether there is room, too. Router and
// simulator run this same code. It knows no HTTP, no engines and no budgets.
package queue

import (
	"slices"
	"time"
)

// maxIdle bounds the tenants that are remembered while nothing of theirs waits.
const maxIdle = 4096

// Limits bound a queue; a zero is no bound. Those of a tenant hold in each of its bands.
type Limits struct {
	Requests       int
	Bytes          int64
	TenantRequests int
	TenantBytes    int64
}

// Item is one request that waits. The queue keeps the pointer while it does; the caller changes nothing meanwhile.
type Item struct {
	Tenant  string
	Band    int    // the greater is served first, always
	Kind    string // items of one kind find room together: the model
	Tokens  int    // what it is charged in its tenant's turn; below 1 is 1
	Bytes   int64  // memory that it holds
	Arrived time.Time
	Late    time.Time // from then on it cannot meet its TTFT; zero is never
	Of      any       // the caller's own

	number uint64 // in the order of Push
	kind   *kind
}

// cost is Tokens, and at least 1: free requests would never end a turn.
func (i *Item) cost() int { return max(1, i.Tokens) }

// kind is what items wait for together.
type kind struct {
	waiting int
	room    bool // as the caller says in this Next
}

// Size is what waits.
type Size struct {
	Requests int
	Bytes    int64
	Tokens   int
}

func (s *Size) add(i *Item) {
	s.Requests, s.Bytes, s.Tokens = s.Requests+1, s.Bytes+i.Bytes, s.Tokens+i.cost()
}

func (s *Size) remove(i *Item) {
	s.Requests, s.Bytes, s.Tokens = s.Requests-1, s.Bytes-i.Bytes, s.Tokens-i.cost()
}

// Queue is the requests that wait for one pool. The zero value is empty and without bounds. Its owner locks it.
type Queue struct {
	Limits Limits

	bands   []*band // the highest first
	kinds   map[string]*kind
	size    Size
	pushed  uint64
	expired []*Item // scratch
}

// Size says how much waits.
func (q *Queue) Size() Size { return q.size }

// Push lets an item wait. What must leave for it, because a limit is exceeded, is returned: the newest of the longest
// queue of the lowest band, which may be the item itself. Cost: the tenants of that band for each that leaves.
func (q *Queue) Push(i *Item) (shed []*Item) {
	b := q.band(i.Band)
	f := b.flow(i.Tenant)
	if q.neverFits(i, f) {
		b.forget(f)
		return []*Item{i}
	}
	q.pushed++
	i.number, i.kind = q.pushed, q.kindOf(i.Kind)
	i.kind.waiting++
	q.size.add(i)
	b.enter(f, i)
	for q.over() {
		victim := q.victim()
		q.Remove(victim)
		shed = append(shed, victim)
	}
	return shed
}

// neverFits says whether an item exceeds what its tenant may have waiting, or what may wait at all.
func (q *Queue) neverFits(i *Item, f *flow) bool {
	l := &q.Limits
	return l.TenantRequests > 0 && f.size.Requests >= l.TenantRequests ||
		l.TenantBytes > 0 && f.size.Bytes+i.Bytes > l.TenantBytes || l.Bytes > 0 && i.Bytes > l.Bytes
}

func (q *Queue) over() bool {
	l := &q.Limits
	return l.Requests > 0 && q.size.Requests > l.Requests || l.Bytes > 0 && q.size.Bytes > l.Bytes
}

// victim is the newest item of the longest queue of the lowest band: longest in requests, or in bytes where these are
// too many. Of two as long it is the one whose newest item is the newer.
func (q *Queue) victim() *Item {
	byBytes := q.Limits.Requests == 0 || q.size.Requests <= q.Limits.Requests
	for at := len(q.bands) - 1; ; at-- { // what is over a limit is not empty
		var longest *flow
		for _, f := range q.bands[at].ring {
			if longest == nil || f.longer(longest, byBytes) {
				longest = f
			}
		}
		if longest != nil {
			return longest.newest()
		}
	}
}

// Remove takes an item out, because its client has left; false if it does not wait here any more.
func (q *Queue) Remove(i *Item) bool {
	if i.kind == nil {
		return false
	}
	b := q.band(i.Band)
	b.leave(b.flows[i.Tenant], i)
	q.left(i)
	return true
}

// left counts an item that waits no more.
func (q *Queue) left(i *Item) {
	q.size.remove(i)
	if i.kind.waiting--; i.kind.waiting == 0 {
		delete(q.kinds, i.Kind)
	}
	i.kind = nil
}

// Expire takes out what has waited for longer than life says that its kind may. The answer is valid until the next
// call. Cost: all items.
func (q *Queue) Expire(now time.Time, life func(kind string) time.Duration) []*Item {
	q.expired = q.expired[:0]
	for _, b := range q.bands {
		for _, f := range b.ring {
			for _, list := range [2][]*Item{f.fresh, f.late} {
				for _, i := range list {
					if now.Sub(i.Arrived) >= life(i.Kind) {
						q.expired = append(q.expired, i)
					}
				}
			}
		}
	}
	for _, i := range q.expired {
		q.Remove(i)
	}
	return q.expired
}

// Next takes out the item that is served next, if there is room for any kind that waits; nil if not. room is asked once
// for each kind. An item without room does not hold up those of other kinds. Cost: the tenants, and the items before it.
func (q *Queue) Next(now time.Time, room func(kind string) bool) *Item {
	some := false
	for name, k := range q.kinds {
		k.room = room(name)
		some = some || k.room
	}
	if !some {
		return nil
	}
	for _, b := range q.bands {
		if i := b.next(now); i != nil {
			q.left(i)
			return i
		}
	}
	return nil
}

// Correct charges a tenant for what its requests cost beyond their Tokens, or gives back where it is negative. While a
// tenant has nothing waiting it keeps what it owes, not what it is owed, and that only while others of its band wait.
func (q *Queue) Correct(tenant string, priority, tokens int) {
	at, known := q.find(priority)
	if !known {
		return
	}
	if f := q.bands[at].flows[tenant]; f != nil {
		f.deficit -= tokens
		if f.size.Requests == 0 {
			f.deficit = min(f.deficit, 0)
		}
	}
}

func (q *Queue) find(priority int) (at int, known bool) {
	return slices.BinarySearchFunc(q.bands, priority, func(b *band, p int) int { return p - b.priority })
}

// band finds or makes a band. Priorities are the operator's, so they are few.
func (q *Queue) band(priority int) *band {
	at, known := q.find(priority)
	if !known {
		q.bands = slices.Insert(q.bands, at, &band{priority: priority, flows: make(map[string]*flow)})
	}
	return q.bands[at]
}

func (q *Queue) kindOf(name string) *kind {
	k := q.kinds[name]
	if k == nil {
		if q.kinds == nil {
			q.kinds = make(map[string]*kind)
		}
		k = &kind{}
		q.kinds[name] = k
	}
	return k
}
