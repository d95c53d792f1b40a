package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var epoch = time.Unix(1_000_000, 0)

func always(string) bool { return true }

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

// drain takes everything out and names it.
func drain(q *Queue, now time.Time) (names []string) {
	for i := q.Next(now, always); i != nil; i = q.Next(now, always) {
		names = append(names, fmt.Sprint(i.Of))
	}
	return names
}

func push(q *Queue, tenant string, band, tokens int, name string) []*Item {
	return q.Push(&Item{Tenant: tenant, Band: band, Tokens: tokens, Arrived: epoch, Of: name})
}

func TestOneTenantIsServedInOrder(t *testing.T) {
	var q Queue
	for i := range 5 {
		push(&q, "a", 0, 100_000, fmt.Sprint(i))
	}
	if got := drain(&q, epoch); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) || q.Size() != (Size{}) {
		t.Errorf("served %v, left %+v", got, q.Size())
	}
}

func TestBandsAreStrict(t *testing.T) {
	var q Queue
	push(&q, "a", 0, 1, "low")
	push(&q, "b", -3, 1, "lowest")
	push(&q, "c", 7, 1_000_000, "high") // however dear
	push(&q, "a", 7, 1, "high too")
	if got := drain(&q, epoch); got[2] != "low" || got[3] != "lowest" {
		t.Errorf("served %v", got)
	}
}

// While all always have something waiting, what two equal tenants got never differs by more than a quantum and the
// dearest item of each, whatever their items cost and however many wait.
func TestTurnsAreFairInTokens(t *testing.T) {
	var q Queue
	cost := map[string][]int{"short": {50}, "long": {60_000}, "mixed": {10, 20_000, 700}, "greedy": {4000}}
	sent := map[string]int{}
	more := func(tenant string) {
		c := cost[tenant]
		push(&q, tenant, 0, c[sent[tenant]%len(c)], tenant)
		sent[tenant]++
	}
	for tenant := range cost {
		for range 3 {
			more(tenant)
		}
	}
	for range 2000 {
		more("greedy") // a long queue is no claim
	}
	served := map[string]int{}
	for range 200_000 {
		i := q.Next(epoch, always)
		served[i.Tenant] += i.Tokens
		more(i.Tenant)
		for a := range cost {
			for b := range cost {
				if diff := served[a] - served[b]; diff > Quantum+slices.Max(cost[a])+slices.Max(cost[b]) {
					t.Fatalf("%s has %d tokens, %s %d", a, served[a], b, served[b])
				}
			}
		}
	}
	if served["short"] < 1_000_000 {
		t.Errorf("only %d tokens were served to each: nothing was seen", served["short"])
	}
}

// An item is served after a bounded number of others, however many the others send.
func TestNobodyStarves(t *testing.T) {
	var q Queue
	for i := range 300 {
		for k := range 10 {
			push(&q, fmt.Sprint("t", k), 0, 500, fmt.Sprint(i))
		}
	}
	push(&q, "small", 0, 30_000, "it")
	// Each of the ten may spend eight quanta before the small one can pay, and one item more.
	for n := 0; ; n++ {
		i := q.Next(epoch, always)
		if i.Of == "it" {
			return
		}
		push(&q, i.Tenant, 0, 500, "more")
		if n > 10*(8*Quantum/500+1) {
			t.Fatalf("%d were served before", n)
		}
	}
}

func TestLateItemsComeLastButOneInTen(t *testing.T) {
	var q Queue
	for i := range 40 {
		late := at(100)
		if i < 8 {
			late = at(1)
		}
		q.Push(&Item{Tenant: "a", Tokens: 1, Arrived: at(float64(i) / 1000), Late: late, Of: i})
	}
	want := "[8 9 10 11 12 13 14 15 16 0 17 18 19 20 21 22 23 24 25 1 26 27 28 29 30 31 32 33 34 2 35 36 37 38 39 3 4 5 6 7]"
	if got := fmt.Sprint(drain(&q, at(2))); got != want {
		t.Errorf("served %s\nwant   %s", got, want)
	}
	// Nobody is late who has just come: its prompt may be long.
	q.Push(&Item{Tenant: "a", Tokens: 1, Arrived: at(2), Late: at(1), Of: "new"})
	q.Push(&Item{Tenant: "a", Tokens: 1, Arrived: at(2.01), Late: at(9), Of: "newer"})
	if got := fmt.Sprint(drain(&q, at(2.03))); got != "[new newer]" {
		t.Errorf("served %s", got)
	}
}

func TestItemsWithoutRoomDoNotHoldUpOthers(t *testing.T) {
	var q Queue
	for i, kind := range []string{"x", "y", "x", "y"} {
		q.Push(&Item{Tenant: fmt.Sprint("t", i%3), Kind: kind, Tokens: 9000, Arrived: epoch, Of: fmt.Sprint(kind, i)})
	}
	asked := map[string]int{}
	room := func(kind string) bool { asked[kind]++; return kind == "y" }
	a, b, c := q.Next(epoch, room), q.Next(epoch, room), q.Next(epoch, room)
	if a == nil || b == nil || c != nil || a.Kind != "y" || b.Kind != "y" || asked["x"] != 3 || asked["y"] != 2 {
		t.Errorf("%v, %v, %v, asked %v", a, b, c, asked)
	}
	if got := drain(&q, epoch); len(got) != 2 {
		t.Errorf("left %v", got)
	}
}

func TestWhoIsShed(t *testing.T) {
	q := Queue{Limits: Limits{Requests: 5}}
	push(&q, "a", 0, 1, "a1")
	push(&q, "a", 0, 1, "a2")
	push(&q, "b", 0, 1, "b1")
	push(&q, "c", 5, 1, "c1")
	push(&q, "c", 5, 1, "c2")
	for _, c := range []struct {
		tenant string
		band   int
		want   string
	}{
		{"b", 0, "b2"}, // as long as a's, and newer
		{"c", 5, "a2"}, // a and b have one each beside it
		{"c", 5, "b1"},
		{"d", -1, "d1"}, // the lowest band
		{"c", 5, "a1"},
		{"c", 5, "c6"}, // none is below
	} {
		n := 1
		for _, f := range q.band(c.band).flows {
			if f.tenant == c.tenant {
				n += f.size.Requests
			}
		}
		shed := push(&q, c.tenant, c.band, 1, fmt.Sprint(c.tenant, n))
		if len(shed) != 1 || shed[0].Of != c.want || q.Size().Requests != 5 {
			t.Errorf("%+v: shed %v of %+v", c, shed[0].Of, q.Size())
		}
	}
}

func TestBytesAreBounded(t *testing.T) {
	q := Queue{Limits: Limits{Bytes: 100, TenantBytes: 60, TenantRequests: 3}}
	item := func(tenant string, bytes int64) *Item {
		return &Item{Tenant: tenant, Bytes: bytes, Tokens: 1, Arrived: epoch}
	}
	small := item("s", 30)
	if q.Push(small) != nil || q.Push(item("t", 60)) != nil {
		t.Fatal("shed without need")
	}
	if i := item("t", 1); q.Push(i)[0] != i {
		t.Error("a tenant has more bytes than it may")
	}
	if i := item("u", 101); q.Push(i)[0] != i {
		t.Error("more bytes than may wait at all")
	}
	if shed := q.Push(item("u", 20)); len(shed) != 1 || shed[0].Bytes != 60 || q.Size().Bytes != 50 {
		t.Errorf("shed %+v, left %+v", shed, q.Size())
	}
	for range 2 {
		q.Push(item("s", 0))
	}
	if i := item("s", 0); q.Push(i)[0] != i {
		t.Error("a tenant has more requests than it may")
	}
	if !q.Remove(small) || q.Remove(small) || q.Size().Bytes != 20 {
		t.Errorf("left %+v", q.Size())
	}
}

func TestItemsExpireByTheirKind(t *testing.T) {
	var q Queue
	for i := range 6 {
		q.Push(&Item{Tenant: fmt.Sprint(i % 2), Kind: []string{"held", "full"}[i%2], Tokens: 1, Arrived: at(float64(i)), Of: i})
	}
	life := func(kind string) time.Duration {
		if kind == "held" {
			return 2 * time.Second
		}
		return 6 * time.Second
	}
	var got []int
	for _, i := range q.Expire(at(5), life) {
		got = append(got, i.Of.(int))
	}
	if slices.Sort(got); !slices.Equal(got, []int{0, 2}) {
		t.Errorf("expired %v", got)
	}
	if len(q.Expire(at(5), life)) != 0 || len(q.Expire(at(1000), life)) != 4 || q.Size() != (Size{}) {
		t.Error("expired twice, or not at all")
	}
}

// Turns that were not needed are no savings for later.
func TestCreditEndsWithTheQueue(t *testing.T) {
	var q Queue
	for range 400 {
		push(&q, "busy", 0, Quantum, "")
	}
	for range 100 {
		push(&q, "saves", 0, 1, "")
		for q.Next(epoch, always).Tenant != "saves" {
		}
	}
	for range 50 {
		push(&q, "saves", 0, Quantum, "")
	}
	for n, left := 0, 50; left > 0; {
		if q.Next(epoch, always).Tenant != "saves" {
			n = 0
			continue
		}
		if n, left = n+1, left-1; n > 2 {
			t.Fatalf("%d at once", n)
		}
	}
}

// What requests cost beyond what was thought is paid in the next turns; what they cost less is given back.
func TestCorrectionsArePaid(t *testing.T) {
	var q Queue
	got := map[string]int{}
	for range 3 {
		push(&q, "liar", 0, 100, "")
		push(&q, "honest", 0, 4000, "")
	}
	for range 4000 {
		i := q.Next(epoch, always)
		if real := 4000; i.Tenant == "liar" {
			q.Correct("liar", 0, real-100)
		}
		got[i.Tenant] += 4000
		push(&q, i.Tenant, 0, i.Tokens, "")
	}
	if share := float64(got["liar"]) / float64(got["honest"]); share > 1.1 || share < .9 {
		t.Errorf("served %v", got)
	}
	q.Correct("nobody", 3, 5)
	q.Correct("nobody", 0, 5)
}

// Nothing is remembered of tenants when nobody waits, and of few while others do.
func TestMemoryIsBounded(t *testing.T) {
	var q Queue
	push(&q, "stays", 0, 1, "")
	for i := range 3 * maxIdle {
		one := &Item{Tenant: fmt.Sprint(i), Kind: fmt.Sprint(i), Arrived: epoch}
		q.Push(one)
		q.Remove(one)
	}
	if n := len(q.bands[0].flows); n > maxIdle+2 || len(q.kinds) != 1 {
		t.Errorf("%d tenants, %d kinds are remembered", n, len(q.kinds))
	}
	drain(&q, epoch)
	if n := len(q.bands[0].flows); n != 0 || len(q.kinds) != 0 {
		t.Errorf("%d tenants, %d kinds are remembered of an empty queue", n, len(q.kinds))
	}
}

// A tenant that waits for room in the middle of its turn has no more to spend when there is room again, however often
// another band is asked meanwhile.
func TestWaitingForRoomIsNoNewTurn(t *testing.T) {
	var q Queue
	for range 3 {
		q.Push(&Item{Tenant: "a", Kind: "x", Tokens: Quantum})
	}
	q.Push(&Item{Tenant: "b", Kind: "x", Tokens: Quantum})
	if i := q.Next(epoch, always); i.Tenant != "a" {
		t.Fatalf("first is %s", i.Tenant)
	}
	for range 5 {
		q.Push(&Item{Tenant: "c", Band: -1, Kind: "y"})
		if i := q.Next(epoch, func(kind string) bool { return kind == "y" }); i.Tenant != "c" {
			t.Fatalf("%s is served without room", i.Tenant)
		}
	}
	if i := q.Next(epoch, always); i.Tenant != "b" {
		t.Errorf("%s has two turns in a row", i.Tenant)
	}
}
