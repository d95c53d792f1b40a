package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// slow is the queue as its rules say: one plain list, searched from the start, and round by round.
type slow struct {
	limits  Limits
	items   []*Item // in order of arrival
	late    map[*Item]bool
	flows   map[string]*slowFlow // by band and tenant
	order   map[int][]string     // of each band: whose turn comes when
	turn    map[int]int
	pushed  map[*Item]int
	pushing int
}

type slowFlow struct {
	deficit, slots int
	fed            bool
}

func newSlow(l Limits) *slow {
	return &slow{limits: l, late: map[*Item]bool{}, flows: map[string]*slowFlow{}, order: map[int][]string{}, turn: map[int]int{}, pushed: map[*Item]int{}}
}

func (s *slow) of(tenant string, band int) (items []*Item, requests int, bytes int64) {
	for _, i := range s.items {
		if i.Tenant == tenant && i.Band == band {
			items, requests, bytes = append(items, i), requests+1, bytes+i.Bytes
		}
	}
	return items, requests, bytes
}

func (s *slow) push(i *Item) (shed []*Item) {
	key := fmt.Sprint(i.Band, i.Tenant)
	_, requests, bytes := s.of(i.Tenant, i.Band)
	l := s.limits
	if requests >= l.TenantRequests || bytes+i.Bytes > l.TenantBytes || i.Bytes > l.Bytes {
		return []*Item{i}
	}
	if s.flows[key] == nil {
		s.flows[key] = &slowFlow{}
	}
	if requests == 0 {
		s.order[i.Band] = append(s.order[i.Band], i.Tenant)
	}
	s.pushing++
	s.pushed[i] = s.pushing
	s.items = append(s.items, i)
	for {
		sum := int64(0)
		for _, one := range s.items {
			sum += one.Bytes
		}
		if len(s.items) <= l.Requests && sum <= l.Bytes {
			return shed
		}
		lowest := slices.MinFunc(s.items, func(a, b *Item) int { return a.Band - b.Band }).Band
		var victim *Item
		most := int64(-1)
		for _, one := range s.items { // a later one wins a tie
			if one.Band != lowest {
				continue
			}
			_, n, size := s.of(one.Tenant, lowest)
			measure := size
			if len(s.items) > l.Requests {
				measure = int64(n)
			}
			if measure >= most {
				victim, most = one, measure
			}
		}
		s.remove(victim)
		shed = append(shed, victim)
	}
}

func (s *slow) remove(i *Item) bool {
	at := slices.Index(s.items, i)
	if at < 0 {
		return false
	}
	s.items = slices.Delete(s.items, at, at+1)
	if _, left, _ := s.of(i.Tenant, i.Band); left == 0 {
		order := s.order[i.Band]
		at := slices.Index(order, i.Tenant)
		s.order[i.Band] = slices.Delete(order, at, at+1)
		if at < s.turn[i.Band] {
			s.turn[i.Band]--
		}
		if s.turn[i.Band] >= len(s.order[i.Band]) {
			s.turn[i.Band] = 0
		}
		f := s.flows[fmt.Sprint(i.Band, i.Tenant)]
		*f = slowFlow{deficit: min(0, f.deficit)}
		if len(s.order[i.Band]) == 0 {
			for key := range s.flows {
				if band := 0; true {
					fmt.Sscanf(key, "%d", &band)
					if band == i.Band {
						delete(s.flows, key)
					}
				}
			}
		}
	}
	return true
}

func (s *slow) next(now time.Time, room func(string) bool) *Item {
	for band := 9; band >= -9; band-- {
		fits := func(tenant string) (fresh, late *Item) {
			items, _, _ := s.of(tenant, band)
			for _, i := range items {
				if !i.Late.IsZero() && now.After(i.Late) && now.Sub(i.Arrived) > leastWait {
					s.late[i] = true
				}
				switch {
				case !room(i.Kind):
				case s.late[i] && late == nil:
					late = i
				case !s.late[i] && fresh == nil:
					fresh = i
				}
			}
			return fresh, late
		}
		some := false
		for _, tenant := range s.order[band] {
			fresh, late := fits(tenant)
			some = some || fresh != nil || late != nil
		}
		for some {
			tenant := s.order[band][s.turn[band]]
			f := s.flows[fmt.Sprint(band, tenant)]
			fresh, late := fits(tenant)
			i := fresh
			if fresh == nil || late != nil && f.slots >= 9 {
				i = late
			}
			if i != nil {
				if !f.fed {
					f.fed, f.deficit = true, f.deficit+Quantum
				}
				if max(1, i.Tokens) <= f.deficit {
					return s.take(f, i)
				}
			}
			f.fed = false
			s.turn[band] = (s.turn[band] + 1) % len(s.order[band])
		}
	}
	return nil
}

func (s *slow) take(f *slowFlow, i *Item) *Item {
	f.deficit -= max(1, i.Tokens)
	items, _, _ := s.of(i.Tenant, i.Band)
	if slices.ContainsFunc(items, func(one *Item) bool { return s.late[one] }) {
		if f.slots++; s.late[i] {
			f.slots = 0
		}
	}
	s.remove(i)
	return i
}

// TestQueueAgainstModel drives the queue and the slow one alike.
func TestQueueAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{
			Requests: rapid.IntRange(1, 12).Draw(t, "requests"), Bytes: rapid.Int64Range(10, 200).Draw(t, "bytes"),
			TenantRequests: rapid.IntRange(1, 8).Draw(t, "tenant requests"), TenantBytes: rapid.Int64Range(10, 100).Draw(t, "tenant bytes"),
		}
		q, s := Queue{Limits: limits}, newSlow(limits)
		now := epoch
		var live []*Item
		rooms := map[string]bool{"x": true, "y": true}
		room := func(kind string) bool { return rooms[kind] }
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1, 2, 3, 4:
				i := Item{
					Tenant: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "tenant"), Band: rapid.IntRange(-1, 1).Draw(t, "band"),
					Kind: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "kind"), Tokens: rapid.IntRange(0, 20_000).Draw(t, "tokens"),
					Bytes: rapid.Int64Range(0, 40).Draw(t, "size"), Arrived: now,
				}
				if rapid.Bool().Draw(t, "has an SLO") {
					i.Late = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "late ms")) * time.Millisecond)
				}
				live = append(live, &i)
				if got, want := q.Push(&i), s.push(&i); !slices.Equal(got, want) {
					t.Fatalf("shed %v, want %v", got, want)
				}
			case 5, 6, 7:
				if got, want := q.Next(now, room), s.next(now, room); got != want {
					t.Fatalf("served %+v, want %+v", got, want)
				}
			case 8:
				rooms[rapid.SampledFrom([]string{"x", "y"}).Draw(t, "room of")] = rapid.Bool().Draw(t, "room")
			case 9:
				if len(live) > 0 {
					i := rapid.SampledFrom(live).Draw(t, "leaves")
					if q.Remove(i) != s.remove(i) {
						t.Fatal("removed once, and once not")
					}
				}
			}
			compare(t, &q, s)
		}
	})
}

func compare(t *rapid.T, q *Queue, s *slow) {
	want := Size{}
	for _, i := range s.items {
		want.add(i)
	}
	if q.Size() != want {
		t.Fatalf("%+v wait, want %+v", q.Size(), want)
	}
}
