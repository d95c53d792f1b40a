package fleet

import (
	"cmp"
	"slices"
	"time"
)

const (
	memberLife = 3 * Period      // not refreshed for so long: gone
	grace      = 6 * time.Second // after NATS came back, nobody ages
)

// roster judges which members are alive, by our own clock. Ages stand still while NATS is away and for grace after:
// members cannot refresh then, and that says nothing about them. The zero value is empty.
type roster struct {
	members map[string]aged
	age     time.Duration // the clock of ages: it stands still when they do
	now     time.Time     // of the last tick
	up      bool
	upSince time.Time
}

type aged struct {
	Member
	seen time.Duration // by the clock of ages
}

// tick moves the time and says whether a member died. It must be called every second or so.
func (r *roster) tick(now time.Time, up bool) (died bool) {
	if up && !r.up && !r.now.IsZero() { // who begins while NATS is there has seen no outage
		r.upSince = now
	}
	if start := r.upSince.Add(grace); r.up && up && now.After(start) {
		from := r.now
		if from.Before(start) {
			from = start
		}
		r.age += now.Sub(from)
	}
	r.up, r.now = up, now
	for key, m := range r.members {
		if r.age-m.seen > memberLife {
			delete(r.members, key)
			died = true
		}
	}
	return died
}

// put notes a refresh and says whether it told anything new.
func (r *roster) put(key string, m Member) (changed bool) {
	if r.members == nil {
		r.members = make(map[string]aged)
	}
	old, known := r.members[key]
	r.members[key] = aged{Member: m, seen: r.age}
	return !known || old.Member != m
}

// remove notes that a member left. That its record expired is no proof: the store may have been away, and a member
// that is truly gone dies by its age at the same time.
func (r *roster) remove(key string, expired bool) (changed bool) {
	if _, known := r.members[key]; !known || expired {
		return false
	}
	delete(r.members, key)
	return true
}

func (r *roster) list() []Member {
	all := make([]Member, 0, len(r.members))
	for _, m := range r.members {
		all = append(all, m.Member)
	}
	slices.SortFunc(all, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Instance, b.Instance))
	})
	return all
}
