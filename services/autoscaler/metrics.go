package autoscaler

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

type metrics struct {
	desired *prometheus.GaugeVec
	demand  *prometheus.GaugeVec
	held    *prometheus.GaugeVec
	reports *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	return &metrics{
		desired: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "warmpath_autoscaler_desired_replicas",
			Help: "Replicas that the demand needs, by pool and role. Shadow mode: nothing is scaled; compare with what runs.",
		}, []string{"pool", "role"}),
		demand: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "warmpath_autoscaler_demand_tokens_per_second",
			Help: "Demand over the last minute by pool and kind (uncached, output). Absent where it is not known.",
		}, []string{"pool", "kind"}),
		held: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "warmpath_autoscaler_held",
			Help: "1 while a pool's demand is not known and the last decision is kept. For minutes: look at routers and NATS.",
		}, []string{"pool"}),
		reports: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_autoscaler_reports_total",
			Help: "Router reports by outcome (taken, malformed, too_many, late). All but taken: look at the routers' versions.",
		}, []string{"outcome"}),
	}
}

func (m *metrics) decided(pool string, before, d *decide.Decision) {
	for role := range before.Roles {
		if _, ok := d.Roles[role]; !ok {
			m.desired.DeleteLabelValues(pool, string(role))
		}
	}
	for role, r := range d.Roles {
		m.desired.WithLabelValues(pool, string(role)).Set(float64(r.Target))
	}
}

func (m *metrics) forget(pool string) {
	for _, v := range []*prometheus.GaugeVec{m.desired, m.demand, m.held} {
		v.DeletePartialMatch(prometheus.Labels{"pool": pool})
	}
}
