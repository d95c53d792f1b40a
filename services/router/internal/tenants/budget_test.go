package tenants

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/fleet"
)

// shelf is a store of one minute's leases, as many as it is asked for.
type shelf struct {
	mu    sync.Mutex
	away  bool
	sums  map[string]fleet.Budget
	asked int
}

var errAway = errors.New("away")

func (s *shelf) Lease(_ context.Context, tenant string, minute int64, want, limit fleet.Budget) (got, sum fleet.Budget, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.away {
		return got, sum, errAway
	}
	if s.sums == nil {
		s.sums = map[string]fleet.Budget{}
	}
	key := tenant + "." + time.Unix(minute*60, 0).UTC().Format("15:04")
	sum = s.sums[key]
	got = fleet.Budget{Requests: max(0, min(want.Requests, limit.Requests-sum.Requests)), Tokens: max(0, min(want.Tokens, limit.Tokens-sum.Tokens))}
	sum = fleet.Budget{Requests: sum.Requests + got.Requests, Tokens: sum.Tokens + got.Tokens}
	s.sums[key] = sum
	return got, sum, nil
}

// Routers together never let in more than the minute's budget, whatever the order, and leave at most a lease each.
func TestRoutersShareABudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := &shelf{}
		routers := make([]Budgets, rapid.IntRange(1, 4).Draw(t, "routers"))
		for i := range routers {
			routers[i].Store = store
		}
		k := &fleet.APIKey{Tenant: "a", RequestsPerMinute: rapid.Int64Range(1, 40).Draw(t, "requests"), TokensPerMinute: rapid.Int64Range(1, 2000).Draw(t, "tokens")}
		requests, tokens, now := int64(0), int64(0), noon
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			cost := rapid.Int64Range(0, 100).Draw(t, "cost")
			b := &routers[rapid.IntRange(0, len(routers)-1).Draw(t, "router")]
			charge, left, ok := b.Spend(t.Context(), k, cost, now)
			if ok {
				requests, tokens = requests+1, tokens+cost
				if rapid.IntRange(0, 3).Draw(t, "refused later") == 0 {
					charge.Undo(now)
					requests, tokens = requests-1, tokens-cost
				}
			} else if len(routers) == 1 && requests < k.RequestsPerMinute && tokens+cost <= k.TokensPerMinute {
				t.Fatalf("refused at %d requests and %d+%d tokens of %+v", requests, tokens, cost, k)
			}
			if requests > k.RequestsPerMinute || tokens > k.TokensPerMinute {
				t.Fatalf("%d requests, %d tokens of %+v", requests, tokens, k)
			}
			if left.Left.Requests < 0 || left.Left.Tokens > k.TokensPerMinute || left.Reset <= 0 || left.Reset > time.Minute {
				t.Fatalf("left %+v", left)
			}
		}
		// What one router cannot let in another may still hold, but no more than a lease each.
		one := int64(0)
		for {
			if _, _, ok := routers[0].Spend(t.Context(), k, 0, now); !ok {
				break
			}
			one++
		}
		if idle := k.RequestsPerMinute - requests - one; idle > int64(len(routers)-1)*((k.RequestsPerMinute+9)/10+requests) {
			t.Fatalf("%d requests of %d are with other routers", idle, k.RequestsPerMinute)
		}
	})
}

func TestAMinuteBeginsAnew(t *testing.T) {
	store := &shelf{}
	b := Budgets{Store: store}
	k := &fleet.APIKey{Tenant: "a", RequestsPerMinute: 2}
	spend := func(now time.Time) bool { _, _, ok := b.Spend(t.Context(), k, 9, now); return ok }
	if !spend(noon) || !spend(noon.Add(59*time.Second)) || spend(noon.Add(59*time.Second)) {
		t.Error("the first minute")
	}
	if !spend(noon.Add(60*time.Second)) || !spend(noon.Add(60*time.Second)) || spend(noon.Add(60*time.Second)) {
		t.Error("the second minute")
	}
}

func TestChargesAreCorrected(t *testing.T) {
	b := Budgets{Store: &shelf{}}
	k := &fleet.APIKey{Tenant: "a", TokensPerMinute: 1000}
	left := func(now time.Time) int64 { _, s, _ := b.Spend(t.Context(), k, 5000, now); return s.Left.Tokens }
	c, _, _ := b.Spend(t.Context(), k, 300, noon)
	if c.Settle(100, noon); left(noon) != 900 {
		t.Errorf("less: %d are left", left(noon))
	}
	c, _, _ = b.Spend(t.Context(), k, 300, noon)
	if c.Settle(500, noon); left(noon) != 400 {
		t.Errorf("more: %d are left", left(noon))
	}
	c, _, _ = b.Spend(t.Context(), k, 300, noon)
	later := noon.Add(time.Minute)
	if c.Settle(100, later); left(later) != 1000 {
		t.Errorf("a minute that is over is given back to: %d are left", left(later))
	}
	if c.Settle(700, later); left(later) != 600 {
		t.Errorf("what a long answer used more: %d are left", left(later))
	}
	Charge{}.Undo(noon)
}

func TestWithoutTheStoreEachRouterSpendsItsShare(t *testing.T) {
	store := &shelf{away: true}
	blind := 0
	b := Budgets{Store: store, Routers: func() int { return 4 }, Blind: func() { blind++ }}
	k := &fleet.APIKey{Tenant: "a", RequestsPerMinute: 100}
	served := 0
	for range 50 {
		if _, _, ok := b.Spend(t.Context(), k, 1, noon); ok {
			served++
		}
	}
	if served != 25 || store.asked != 1 || blind == 0 {
		t.Errorf("%d were served, the store was asked %d times, %d were counted", served, store.asked, blind)
	}
	store.away = false
	if _, _, ok := b.Spend(t.Context(), k, 1, noon.Add(2*blindTime)); !ok || store.asked != 2 {
		t.Errorf("when the store is back: %v, asked %d times", ok, store.asked)
	}
}

func TestTenantsWithoutBoundsCostNothing(t *testing.T) {
	var b Budgets // without a store
	if _, s, ok := b.Spend(t.Context(), &fleet.APIKey{Tenant: "a"}, 1<<40, noon); !ok || s != (Standing{}) || b.accounts != nil {
		t.Errorf("%+v, %v", s, ok)
	}
}

func TestAccountsOfTheLongGoneAreDropped(t *testing.T) {
	b := Budgets{Store: &shelf{}}
	for i := range 100 {
		b.Spend(t.Context(), &fleet.APIKey{Tenant: string(rune('a' + i)), RequestsPerMinute: 1}, 1, noon.Add(time.Duration(i)*time.Minute))
	}
	if n := len(b.accounts); n > keepMinute+1 {
		t.Errorf("%d accounts", n)
	}
}

// TestTwoRoutersShareABudgetThroughNATS spends one budget from two connections at once, many requests side by side.
func TestTwoRoutersShareABudgetThroughNATS(t *testing.T) {
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	k := &fleet.APIKey{Tenant: "a", RequestsPerMinute: 200, TokensPerMinute: 3000}
	var requests, tokens atomic.Int64
	var wait sync.WaitGroup
	for range 2 {
		conn, err := bus.Connect(t.Context(), server.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		if err := conn.Ensure(t.Context(), bus.Sizes{}); err != nil {
			t.Fatal(err)
		}
		store, err := fleet.OpenBudgets(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		for range 8 { // as many routers as it takes for their leases to meet
			b := &Budgets{Store: patient{store}, Blind: func() { t.Error("a lease failed") }}
			wait.Go(func() {
				for range 60 {
					if _, _, ok := b.Spend(context.Background(), k, 20, noon); ok {
						requests.Add(1)
						tokens.Add(20)
					}
				}
			})
		}
	}
	wait.Wait()
	// 3,000 tokens are 150 requests; a part of 300 holds 15 whole ones, so nothing is left over where each is used up.
	if requests.Load() > 150 || tokens.Load() > 3000 || requests.Load() < 100 {
		t.Errorf("%d requests, %d tokens were let in", requests.Load(), tokens.Load())
	}
}

// patient gives each lease its time: a loaded machine must not change what is tested.
type patient struct{ *fleet.Budgets }

func (p patient) Lease(_ context.Context, tenant string, minute int64, want, limit fleet.Budget) (got, sum fleet.Budget, err error) {
	return p.Budgets.Lease(context.Background(), tenant, minute, want, limit)
}

// A request that no minute's budget holds is refused without taking from other routers what they could serve.
func TestARequestThatNeverFitsLeasesNothing(t *testing.T) {
	store := &shelf{}
	b, other := Budgets{Store: store}, Budgets{Store: store}
	k := &fleet.APIKey{Tenant: "a", TokensPerMinute: 1000}
	if _, s, ok := b.Spend(t.Context(), k, 5000, noon); ok || s.Left.Tokens != 1000 {
		t.Errorf("%v, left %+v", ok, s.Left)
	}
	if _, _, ok := b.Spend(t.Context(), k, 300, noon); !ok {
		t.Error("a small one is refused")
	}
	if _, _, ok := b.Spend(t.Context(), k, 701, noon); ok {
		t.Error("more than is left is let in")
	}
	if _, _, ok := other.Spend(t.Context(), k, 700, noon); !ok {
		t.Error("another router is refused what nobody has spent")
	}
}

// A minute's charge is given back to that minute only, whichever of two that meet at its end comes first.
func TestNoCreditCrossesTheEndOfAMinute(t *testing.T) {
	b := Budgets{Store: &shelf{}}
	k := &fleet.APIKey{Tenant: "a", RequestsPerMinute: 10, TokensPerMinute: 1000}
	spend := func(now time.Time) (Charge, fleet.Budget) {
		c, s, _ := b.Spend(t.Context(), k, 100, now)
		return c, s.Left
	}
	end, next := noon.Add(time.Minute-time.Nanosecond), noon.Add(time.Minute)
	old, _ := spend(end)
	if _, left := spend(next); left != (fleet.Budget{Requests: 9, Tokens: 900}) {
		t.Errorf("the next minute begins with %+v", left)
	}
	old.Undo(end) // its clock was read before the other's
	if _, left := spend(next); left != (fleet.Budget{Requests: 8, Tokens: 800}) {
		t.Errorf("what an earlier minute was charged is given back: %+v", left)
	}
	late, _ := spend(end) // charged to the minute that has begun
	late.Undo(next)
	if _, left := spend(next); left != (fleet.Budget{Requests: 7, Tokens: 700}) {
		t.Errorf("what the minute was charged is not given back: %+v", left)
	}
}

// A budget that is as good as none is no arithmetic trap.
func TestTheGreatestBudgetHolds(t *testing.T) {
	b := Budgets{Store: &shelf{}}
	k := &fleet.APIKey{Tenant: "a", RequestsPerMinute: math.MaxInt64, TokensPerMinute: math.MaxInt64}
	for range 20 {
		if _, s, ok := b.Spend(t.Context(), k, 1<<40, noon); !ok || s.Left.Tokens <= 0 {
			t.Fatalf("%v, %+v", ok, s)
		}
	}
}
