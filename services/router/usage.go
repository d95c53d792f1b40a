package router

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/openai"
)

var errNoStore = errors.New("there is no store of budgets")

// noStore stands in until NATS is met: every lease fails, and the router spends its own share.
type noStore struct{}

func (noStore) Lease(context.Context, string, int64, fleet.Budget, fleet.Budget) (got, leased fleet.Budget, err error) {
	return got, leased, errNoStore
}

// routers counts the routers that share budgets.
func (rt *router) routers() (n int) {
	for _, m := range rt.fleet.View().Members {
		if m.Service == "router" {
			n++
		}
	}
	return n
}

// spend charges the tenant of a request for what it is thought to cost, and tells the client what is left.
func (rt *router) spend(ctx context.Context, answer http.Header, q *request) *openai.Error {
	key := q.caller.key
	if key == nil {
		return nil
	}
	now := rt.wall()
	cost := int64(q.visit.Guess.Prompt + q.visit.Guess.Output)
	charge, left, ok := rt.budgets.Spend(ctx, key, cost, now)
	q.charge = charge
	limits(answer, "requests", left.Limit.Requests, left.Left.Requests, left.Reset)
	limits(answer, "tokens", left.Limit.Tokens, left.Left.Tokens, left.Reset)
	if ok {
		return nil
	}
	rt.metrics.overBudget.WithLabelValues(rt.metrics.tenant(key.Tenant)).Inc()
	message := "the budget of this minute is spent"
	if left.Limit.Tokens > 0 && cost > left.Limit.Tokens {
		message = "the request needs more tokens than the budget of a minute has"
	}
	return &openai.Error{Status: http.StatusTooManyRequests, Code: codeOverBudget, RetryAfter: left.Reset, Message: message}
}

// limits sets the headers by which OpenAI's API tells what is left of a budget.
func limits(h http.Header, what string, limit, left int64, reset time.Duration) {
	if limit == 0 {
		return
	}
	h.Set("X-Ratelimit-Limit-"+what, strconv.FormatInt(limit, 10))
	h.Set("X-Ratelimit-Remaining-"+what, strconv.FormatInt(left, 10))
	h.Set("X-Ratelimit-Reset-"+what, reset.Round(time.Millisecond).String())
}

// account notes what a request used, when it has ended: for its tenant's budget, and for who bills.
func (x *exchange) account(output int) {
	q := x.q
	q.prompt, q.output = x.res.Prompt, output
	cached := 0
	if x.usage != nil {
		q.prompt, cached = x.usage.Prompt, x.usage.Cached
	}
	// Who leaves an engine at work on the prompt pays for it, or could have prompts computed for nothing.
	computed := !x.first.IsZero() || x.usage != nil || x.apart.usage != nil || q.asked && x.outcome == outcomeCancelled
	if !computed {
		q.prompt = 0
	}
	judged := x.outcome == outcomeRefused && x.status < http.StatusInternalServerError && x.status != http.StatusTooManyRequests
	q.pays = computed || judged
	x.compare()
	m := x.rt.metrics
	m.wait.WithLabelValues(x.pool.id).Observe(q.visit.Waited.Seconds())
	m.used(m.tenant(q.caller.tenant()), q.model, q.prompt, cached, output)
	if x.q.stream && !x.first.IsZero() {
		x.pool.wrong.add(x.predicted.Seconds(), x.first.Sub(q.arrived).Seconds())
	}
}

// settle corrects what the tenant of a request was charged, when it has ended. What was not served costs nothing; a
// request that its engine refused for what it is counts as a request.
func (q *request) settle(now time.Time) {
	if !q.pays {
		q.charge.Undo(now)
		return
	}
	q.charge.Settle(int64(q.prompt+q.output), now)
}

// booked tells the door that the request has an engine, and notes when the first byte is expected: what has passed, and
// what the ledger foresees.
func (x *exchange) booked(now time.Time) {
	x.q.visit.Booked(x.res.Uncached)
	x.predicted = now.Sub(x.q.arrived) + x.res.Predicted()
}

// sloOf is what one request should keep: what its client says, or else the pool's. The TTFT moves it in the turn of its own
// tenant only, and for its ITL it passes engines over that are too full, so that anybody may say both.
func (rt *router) sloOf(h http.Header) SLO {
	own := func(name string, pool time.Duration) time.Duration {
		return cmp.Or(milliseconds(h.Get("X-Llm-D-Slo-"+name)), milliseconds(h.Get("X-Slo-"+name)), pool)
	}
	return SLO{TTFT: own("Ttft-Ms", rt.cfg.SLO.TTFT), ITL: own("Tpot-Ms", rt.cfg.SLO.ITL)}
}

// milliseconds reads a number of them, within a day; 0 is none.
func milliseconds(s string) time.Duration {
	if s == "" {
		return 0
	}
	ms, err := strconv.ParseFloat(s, 64)
	if err != nil || !(ms > 0) || ms > 86_400_000 {
		return 0
	}
	return time.Duration(ms * float64(time.Millisecond))
}
