package autoscaler

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

type metrics struct {
	desired, replicas, candidates, short, draining, busy, tokens, requests, age, held, model, violations *prometheus.GaugeVec
	reports, records, orders                                                                             *prometheus.CounterVec
	unscraped, dropped                                                                                   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return auto.NewGaugeVec(prometheus.GaugeOpts{Name: "warmpath_autoscaler_" + name, Help: help}, append([]string{"pool"}, labels...))
	}
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: "warmpath_autoscaler_" + name, Help: help}, labels)
	}
	return &metrics{
		desired: gauge("desired_replicas", "Replicas that should run, by pool and role. In shadow mode nobody scales: let an HPA or KEDA follow it, or compare with what runs.", "role"),
		replicas: gauge("replicas", "Replicas by role and state (ordered, ready, starting, stuck). Stuck above 0: look at the pods that do not become ready.",
			"role", "state"),
		candidates: gauge("candidate_replicas", "What each rule asks for; the greatest binds unless a bound, the budget or a block is in force.", "role", "rule"),
		short:      gauge("short_replicas", "Replicas that the GPU budget refused. Above 0: raise the budget, or expect violations.", "role"),
		draining:   gauge("draining_replicas", "Replicas that routers choose no more and that are to go when their requests have ended.", "role"),
		busy: gauge("demand_replicas", "Demand in busy replicas, by kind (arriving, observed, flow, forecast, held). Held is what is scaled for.",
			"role", "kind"),
		tokens:   gauge("demand_tokens_per_second", "Demand by role: uncached prompt tokens of prefill, output tokens of decode.", "role"),
		requests: gauge("demand_requests_per_second", "Arrivals by role.", "role"),
		age: gauge("source_age_seconds", "Age of what was last heard, by source (routers, engines, cluster). Absent: never heard. Above 15: that source is down or cut off.",
			"source"),
		held:       gauge("held", "1 while a source is missing and the last decision is kept. For minutes: look at routers, NATS and engines' metrics."),
		model:      gauge("model", "Learned parameters of one replica, and how far they are learned (confidence, 0 to 1).", "role", "parameter"),
		violations: gauge("predicted_violations", "Share of requests that should miss the objective with the desired replicas (n), one less and one more.", "role", "replicas"),
		reports:    count("reports_total", "Router reports by outcome (taken, malformed, too_many). All but taken: look at the routers' versions.", "outcome"),
		records:    count("records_total", "Request records by outcome (taken, malformed). Malformed: look at the routers' versions.", "outcome"),
		orders: count("steps_total", "Drains, undrains and orders of replicas by outcome. Conflict: somebody else scales the same object. Failed: see the log.",
			"pool", "role", "do", "outcome"),
		unscraped: auto.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_autoscaler_scrape_failures_total", Help: "Metrics of engines that could not be read. While it grows nothing is scaled down: look at the engines.",
		}),
		dropped: auto.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_autoscaler_records_dropped_total", Help: "Decisions that could not be logged. Growing: NATS is away or full.",
		}),
	}
}

// decided shows a decision and what it was made from. Roles that the decision before had and this has not disappear.
func (m *metrics) decided(pool string, o *decide.Observation, before, d *decide.Decision) {
	for role := range before.Roles {
		if _, ok := d.Roles[role]; !ok {
			m.forgetRole(pool, string(role))
		}
	}
	for source, age := range map[string]float64{"routers": d.Ages.Routers, "engines": d.Ages.Engines, "cluster": d.Ages.Cluster} {
		if age < 0 {
			m.age.DeleteLabelValues(pool, source)
			continue
		}
		m.age.WithLabelValues(pool, source).Set(age)
	}
	held := 0.
	if d.Blind != "" {
		held = 1
	}
	m.held.WithLabelValues(pool).Set(held)
	for role, r := range d.Roles {
		m.role(pool, string(role), &r)
		m.running(pool, string(role), o.Replicas[role])
		draining := 0
		for i := range o.Engines {
			if e := &o.Engines[i]; e.Role == role && e.Draining {
				draining++
			}
		}
		m.draining.WithLabelValues(pool, string(role)).Set(float64(draining))
	}
}

func (m *metrics) role(pool, role string, r *decide.RoleDecision) {
	m.desired.WithLabelValues(pool, role).Set(float64(r.Target))
	m.short.WithLabelValues(pool, role).Set(float64(r.Short))
	m.tokens.WithLabelValues(pool, role).Set(r.Demand.Tokens)
	m.requests.WithLabelValues(pool, role).Set(r.Demand.Arrivals)
	for kind, v := range map[string]float64{
		"arriving": r.Demand.Busy, "observed": r.Demand.Observed, "flow": r.Demand.Flow, "forecast": r.Demand.Forecast, "held": r.Demand.Held,
	} {
		m.busy.WithLabelValues(pool, role, kind).Set(v)
	}
	m.candidates.DeletePartialMatch(prometheus.Labels{"pool": pool, "role": role})
	for _, c := range r.Candidates {
		m.candidates.WithLabelValues(pool, role, c.Rule).Set(float64(c.N))
	}
	for parameter, v := range map[string]float64{
		"prefill_overhead_seconds": r.Model.Overhead, "prefill_tokens_per_second": r.Model.Rate, "decode_step_ms": r.Model.Step,
		"decode_sequence_ms": r.Model.Sequence, "decode_kilotoken_ms": r.Model.Kilo, "sequences": r.Model.Sequences,
		"startup_seconds": r.Model.Startup, "confidence": r.Model.Confidence,
	} {
		m.model.WithLabelValues(pool, role, parameter).Set(v)
	}
	m.violations.DeletePartialMatch(prometheus.Labels{"pool": pool, "role": role})
	for _, p := range r.Predicted {
		label := map[int]string{-1: "n-1", 0: "n", 1: "n+1"}[p.N-r.Target]
		if label != "" {
			m.violations.WithLabelValues(pool, role, label).Set(p.Violations)
		}
	}
}

func (m *metrics) running(pool, role string, r decide.Replicas) {
	stuck := 0
	for _, s := range r.Starting {
		if s.Stuck != "" {
			stuck++
		}
	}
	for state, n := range map[string]int{"ordered": r.Desired, "ready": r.Ready, "starting": len(r.Starting) - stuck, "stuck": stuck} {
		m.replicas.WithLabelValues(pool, role, state).Set(float64(n))
	}
}

func (m *metrics) gauges() []*prometheus.GaugeVec {
	return []*prometheus.GaugeVec{
		m.desired, m.replicas, m.candidates, m.short, m.draining, m.busy, m.tokens, m.requests, m.age, m.held, m.model, m.violations,
	}
}

func (m *metrics) forgetRole(pool, role string) {
	for _, v := range m.gauges() {
		v.DeletePartialMatch(prometheus.Labels{"pool": pool, "role": role})
	}
}

// forget lets all that was shown of a pool disappear.
func (m *metrics) forget(pool string) {
	for _, v := range m.gauges() {
		v.DeletePartialMatch(prometheus.Labels{"pool": pool})
	}
}
