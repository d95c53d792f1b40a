package tenants

import (
	"context"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

const (
	leaseParts = 10                     // a lease is such a part of a minute's budget, or more where a request needs it
	leaseTime  = 200 * time.Millisecond // a lease must have come by then
	blindTime  = time.Second            // after a lease that failed, none is tried for so long
	keepMinute = 10                     // accounts of so many minutes ago are dropped
)

// leaser is fleet.Budgets.
type leaser interface {
	Lease(ctx context.Context, tenant string, minute int64, want, limit fleet.Budget) (got, leased fleet.Budget, err error)
}

// Budgets hold tenants to their requests and tokens a minute. Store must be set; safe for concurrent use.
type Budgets struct {
	Store leaser
	// Routers says how many routers share the budgets while the store is away: each then spends its part of them. nil is 1.
	Routers func() int
	// Blind is told each time that a lease failed and the router's own part stood in; nil is nobody.
	Blind func()

	mu       sync.Mutex
	accounts map[string]*account
}

// account is a tenant's minute, as far as this router knows it.
type account struct {
	mu     sync.Mutex // held while a lease is asked for: one is enough for all who wait
	minute int64
	leased fleet.Budget // to this router
	spent  fleet.Budget // here; more than leased where requests cost more than was thought
	total  fleet.Budget // leased to all routers, when last seen
	blind  time.Time    // the store is not asked before
}

// Charge is what a request was charged when it came; the zero value is nothing.
type Charge struct {
	account *account
	minute  int64
	tokens  int64
}

// Standing is what is left of a tenant's minute, as far as this router knows.
type Standing struct {
	Limit, Left fleet.Budget // of Limit 0 there is no bound
	Reset       time.Duration
}

// Spend charges a tenant for a request of so many tokens; ok is false where its minute's budget does not hold them. Only
// a request that needs a new lease waits for the store. now is the wall clock: all routers must mean the same minute.
func (b *Budgets) Spend(ctx context.Context, k *fleet.APIKey, tokens int64, now time.Time) (c Charge, s Standing, ok bool) {
	limit := fleet.Budget{Requests: k.RequestsPerMinute, Tokens: k.TokensPerMinute}
	if limit == (fleet.Budget{}) {
		return Charge{}, Standing{}, true
	}
	minute := now.Unix() / 60
	a := b.account(k.Tenant, minute)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begin(minute)
	need := fleet.Budget{Requests: a.spent.Requests + 1, Tokens: a.spent.Tokens + tokens}
	if !covers(a.leased, need, limit) && covers(limit, need, limit) { // what no lease can hold takes none from others
		b.lease(ctx, a, k.Tenant, need, limit, now)
	}
	if ok = covers(a.leased, need, limit); ok {
		a.spent = need
		c = Charge{account: a, minute: a.minute, tokens: tokens}
	}
	return c, a.standing(limit, now), ok
}

// account finds a tenant's account, and drops those long unused.
func (b *Budgets) account(tenant string, minute int64) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[tenant]
	if a != nil {
		return a
	}
	for name, old := range b.accounts {
		if old.mu.TryLock() {
			if old.minute < minute-keepMinute {
				delete(b.accounts, name)
			}
			old.mu.Unlock()
		}
	}
	if b.accounts == nil {
		b.accounts = make(map[string]*account)
	}
	a = &account{minute: minute}
	b.accounts[tenant] = a
	return a
}

// begin starts another minute. One step back is no other minute: requests that run at once see different times.
func (a *account) begin(minute int64) {
	if minute > a.minute || minute < a.minute-1 {
		a.minute, a.leased, a.spent, a.total = minute, fleet.Budget{}, fleet.Budget{}, fleet.Budget{}
	}
}

// covers says whether what is leased holds what is needed, of the bounded ones.
func covers(leased, need, limit fleet.Budget) bool {
	return (limit.Requests == 0 || need.Requests <= leased.Requests) && (limit.Tokens == 0 || need.Tokens <= leased.Tokens)
}

// lease asks for what is missing, in whole parts. While the store is away this router's share of the minute stands in.
func (b *Budgets) lease(ctx context.Context, a *account, tenant string, need, limit fleet.Budget, now time.Time) {
	if now.Before(a.blind) {
		b.share(a, limit)
		return
	}
	want := fleet.Budget{
		Requests: parts(need.Requests-a.leased.Requests, limit.Requests),
		Tokens:   parts(need.Tokens-a.leased.Tokens, limit.Tokens),
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTime) // it is for all who wait
	defer cancel()
	got, total, err := b.Store.Lease(ctx, tenant, a.minute, want, limit)
	if err != nil {
		a.blind = now.Add(blindTime)
		b.share(a, limit)
		return
	}
	a.leased.Requests += got.Requests
	a.leased.Tokens += got.Tokens
	a.total = total
}

// parts is what is missing, rounded up to parts of the limit.
func parts(missing, limit int64) int64 {
	if missing <= 0 || limit == 0 {
		return 0
	}
	one := (limit-1)/leaseParts + 1
	return (missing + one - 1) / one * one
}

// share lets the router spend its part of the minute's budget, where that is more than it has leased.
func (b *Budgets) share(a *account, limit fleet.Budget) {
	routers := int64(1)
	if b.Routers != nil {
		routers = max(1, int64(b.Routers()))
	}
	a.leased.Requests = max(a.leased.Requests, limit.Requests/routers)
	a.leased.Tokens = max(a.leased.Tokens, limit.Tokens/routers)
	if b.Blind != nil {
		b.Blind()
	}
}

// standing reads what is left. The account is locked.
func (a *account) standing(limit fleet.Budget, now time.Time) Standing {
	left := func(limit, total, leased, spent int64) int64 {
		return max(0, min(limit, limit-max(total, leased)+leased-spent))
	}
	return Standing{
		Limit: limit,
		Left: fleet.Budget{
			Requests: left(limit.Requests, a.total.Requests, a.leased.Requests, a.spent.Requests),
			Tokens:   left(limit.Tokens, a.total.Tokens, a.leased.Tokens, a.spent.Tokens),
		},
		Reset: untilNextMinute(now),
	}
}

// untilNextMinute is how long the minute's budget still holds.
func untilNextMinute(now time.Time) time.Duration {
	return time.Minute - time.Duration(now.UnixNano()%int64(time.Minute))
}

// Settle corrects a charge by the tokens that the request used. What it used more is charged to the present minute; what
// it used less is given back only while the minute lasts.
func (c Charge) Settle(used int64, now time.Time) { c.correct(0, used-c.tokens, now) }

// Undo gives a charge back: the request was not served.
func (c Charge) Undo(now time.Time) { c.correct(-1, -c.tokens, now) }

func (c Charge) correct(requests, tokens int64, now time.Time) {
	if c.account == nil {
		return
	}
	c.account.mu.Lock()
	defer c.account.mu.Unlock()
	c.account.begin(now.Unix() / 60)
	if tokens <= 0 && c.account.minute != c.minute {
		return
	}
	c.account.spent.Requests += requests
	c.account.spent.Tokens += tokens
}
