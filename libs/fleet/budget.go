package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/warmpath/warmpath/libs/bus"
)

// Budget is an amount of requests and of tokens: what a tenant may spend in a minute, or a part of it.
type Budget struct {
	Requests int64 `json:"requests"`
	Tokens   int64 `json:"tokens"`
}

// Budgets leases parts of tenants' budgets to routers: KV budgets, key `<tenant>.<minute>`, value the sum of all
// leases. A minute is 60 seconds of Unix time. Safe for concurrent use.
type Budgets struct{ kv *bus.KV }

// OpenBudgets opens the bucket, which Ensure must have made.
func OpenBudgets(ctx context.Context, c *bus.Conn) (*Budgets, error) {
	kv, err := c.KV(ctx, bus.Budgets)
	if err != nil {
		return nil, fmt.Errorf("open budgets: %w", err)
	}
	return &Budgets{kv: kv}, nil
}

// leaseTries bounds how often a lease is tried that others were quicker with: each of them got one.
const leaseTries = 32

// Lease takes want from a tenant's budget of a minute by compare-and-set, or what is left of limit where that is less.
// It returns what it got and the sum of all leases of the minute. It makes one attempt while NATS is away.
func (b *Budgets) Lease(ctx context.Context, tenant string, minute int64, want, limit Budget) (got, leased Budget, err error) {
	key := tenant + "." + strconv.FormatInt(minute, 10)
	for range leaseTries {
		var sum Budget
		e, err := b.kv.Get(ctx, key)
		switch {
		case errors.Is(err, bus.ErrNotFound):
		case err != nil:
			return Budget{}, Budget{}, fmt.Errorf("lease a budget: %w", err)
		default:
			if err := json.Unmarshal(e.Value, &sum); err != nil {
				return Budget{}, Budget{}, fmt.Errorf("read budget %s: %w", key, err)
			}
		}
		got = Budget{part(want.Requests, limit.Requests-sum.Requests), part(want.Tokens, limit.Tokens-sum.Tokens)}
		if got == (Budget{}) {
			return got, sum, nil
		}
		sum = Budget{sum.Requests + got.Requests, sum.Tokens + got.Tokens}
		data, err := json.Marshal(sum)
		if err != nil {
			return Budget{}, Budget{}, fmt.Errorf("encode budget %s: %w", key, err)
		}
		if e.Revision == 0 {
			_, err = b.kv.Create(ctx, key, data)
		} else {
			_, err = b.kv.Update(ctx, key, data, e.Revision)
		}
		if err == nil {
			return got, sum, nil
		}
		if !errors.Is(err, bus.ErrExists) {
			return Budget{}, Budget{}, fmt.Errorf("lease a budget: %w", err)
		}
	}
	return Budget{}, Budget{}, fmt.Errorf("lease budget %s: others were quicker %d times", key, leaseTries)
}

func part(want, left int64) int64 { return max(0, min(want, left)) }
