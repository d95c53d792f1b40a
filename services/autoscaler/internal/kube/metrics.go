package kube

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

type metrics struct {
	orders  *prometheus.CounterVec
	foreign *prometheus.CounterVec
	wrong   *prometheus.CounterVec
	rival   *prometheus.GaugeVec
	leading prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto, role := promauto.With(reg), []string{"pool", "role"}
	return &metrics{
		orders: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_autoscaler_kube_orders_total",
			Help: "Orders to scale by outcome (done, conflict, refused, failed). Refused or failed: see the policy's Events; " +
				"conflicts repeat the order by themselves.",
		}, []string{"pool", "role", "outcome"}),
		foreign: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_autoscaler_kube_foreign_scales_total",
			Help: "Changes of what is scaled that were not ours, and were adopted. Often: find who else scales it.",
		}, role),
		wrong: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_autoscaler_kube_wrong_victims_total",
			Help: "Pods that went with a scale-down though another had drained. Any: requests may have been cut; look at " +
				"what else deletes pods.",
		}, role),
		rival: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "warmpath_autoscaler_kube_conflict",
			Help: "1 while another autoscaler scales the same object and we leave it alone: remove one of the two.",
		}, role),
		leading: auto.NewGauge(prometheus.GaugeOpts{
			Name: "warmpath_autoscaler_kube_leading",
			Help: "1 where this process decides. The sum over all should be 1; 0 for longer than 20 s: look at the lease.",
		}),
	}
}

func (m *metrics) forget(pool string, role decide.Role) {
	m.rival.DeleteLabelValues(pool, string(role))
}
