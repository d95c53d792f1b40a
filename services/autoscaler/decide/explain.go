package decide

import (
	"fmt"
	"strings"
)

// Sentences says in words for people why a role's target is what it is: what was seen and how old it was, what is known
// of a replica, what each rule asked for and which binds, what was not done, what fewer and more would have led to, and
// what became of the forecast before. None for a role that the decision is not about.
func (d Decision) Sentences(pool string, role Role) []string {
	r, ok := d.Roles[role]
	if !ok {
		return nil
	}
	all := []string{fmt.Sprintf("At %s %s %s %s for %s: %s.", d.At.UTC().Format("15:04:05"), pool, r.moves(), replicas(r.Target), role, d.how(&r))}
	if d.Blind != "" {
		all = append(all, "Not all is seen: "+d.Blind+".")
	}
	all = append(all, fmt.Sprintf("The routers were heard %s, the engines %s, what runs was read %s.",
		ago(d.Ages.Routers), ago(d.Ages.Engines), ago(d.Ages.Cluster)))
	if len(r.Candidates) > 0 {
		all = append(all, r.demand(role), r.model(role), r.rules())
	}
	if r.Demand.Infeasible >= .005 {
		all = append(all, fmt.Sprintf("%.0f %% of the prompts are too long to be served in time by any number of replicas; none is added for them.",
			100*r.Demand.Infeasible))
	}
	for _, why := range r.Blocked {
		all = append(all, "Not done: "+why+".")
	}
	if len(r.Predicted) > 0 {
		all = append(all, predicted(r.Predicted))
	}
	if x := r.Realised; x != nil {
		all = append(all, fmt.Sprintf("The decision of %s foresaw %.2f busy replicas for now; %.2f came.",
			x.At.UTC().Format("15:04:05"), x.Forecast, x.Came))
	}
	return all
}

func replicas(n int) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}

func (r *RoleDecision) moves() string {
	switch {
	case r.Target > r.Now:
		return fmt.Sprintf("goes up from %d to", r.Now)
	case r.Target < r.Now:
		return fmt.Sprintf("goes down from %d to", r.Now)
	}
	return "stays at"
}

// how says in how far the decision is carried out, and by which rule it came about.
func (d Decision) how(r *RoleDecision) string {
	mode := map[Mode]string{Shadow: "shadow mode, so nothing is ordered", Off: "scaling is off", UpOnly: "none is ever taken away"}[d.Mode]
	if mode != "" {
		mode = "; " + mode
	}
	if len(r.Candidates) == 0 || r.Need == r.Target {
		return "rule " + quote(r.Rule) + mode
	}
	return fmt.Sprintf("rule %s asks for %d%s", quote(r.Rule), r.Need, mode)
}

func quote(rule string) string { return `"` + rule + `"` }

func ago(seconds float64) string {
	if seconds < 0 {
		return "never"
	}
	return fmt.Sprintf("%.1f s ago", seconds)
}

func (r *RoleDecision) demand(role Role) string {
	x := &r.Demand
	var what string
	switch role {
	case Prefill:
		what = fmt.Sprintf("%.1f requests/s bring %.0f uncached tokens/s, work for %.2f replicas", x.Arrivals, x.Tokens, x.Busy)
	case Decode:
		what = fmt.Sprintf("Sequences fill %.2f replicas at the objective, and %.1f requests/s foretell %.2f", x.Observed, x.Arrivals, x.Flow)
	default:
		what = fmt.Sprintf("%.1f requests/s bring prefill for %.2f replicas, and sequences fill %.2f", x.Arrivals, x.Busy, x.Observed)
	}
	return fmt.Sprintf("%s; %.2f are foreseen, %.2f were at most of late, and arrivals vary %.1f times as much as by chance.",
		what, x.Forecast, x.Held, x.Burst)
}

func (r *RoleDecision) model(role Role) string {
	m := &r.Model
	var what string
	if role != Decode {
		what = fmt.Sprintf("computes %.0f tokens/s beside %.0f ms a prompt", m.Rate, 1000*m.Overhead)
	}
	if role == Both {
		what += " and "
	}
	if role != Prefill {
		what += fmt.Sprintf("takes %.1f ms + %.3f a sequence + %.3f a thousand tokens for a step, and so holds %.0f sequences",
			m.Step, m.Sequence, m.Kilo, m.Sequences)
	}
	return fmt.Sprintf("A replica %s; it starts in %.0f s; %.0f %% of this is learned.", what, m.Startup, 100*m.Confidence)
}

// rules lists what each asks for.
func (r *RoleDecision) rules() string {
	asks := make([]string, 0, len(r.Candidates))
	for _, c := range r.Candidates {
		asks = append(asks, fmt.Sprintf("%s asks for %d", quote(c.Rule), c.N))
	}
	return "Rule " + strings.Join(asks, ", ") + "."
}

func predicted(all []Prediction) string {
	parts := make([]string, 0, len(all))
	for _, p := range all {
		parts = append(parts, fmt.Sprintf("%.1f %% with %d", 100*p.Violations, p.N))
	}
	return "Predicted to miss the objective: " + strings.Join(parts, ", ") + "."
}
