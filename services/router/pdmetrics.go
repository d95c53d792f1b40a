package router

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// splitMetrics are what the router counts of prompts that one engine computes for another.
type splitMetrics struct {
	splits          *prometheus.CounterVec
	prefill         *prometheus.HistogramVec
	prefillFailures *prometheus.CounterVec
	stranded        prometheus.Counter
}

func newSplitMetrics(reg prometheus.Registerer) splitMetrics {
	with := promauto.With(reg)
	return splitMetrics{
		splits: with.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_router_splits_total", Help: "Requests in pools with engines that compute prompts for others, by what came of it. " +
				"Look at fallback and retried: prefill engines fail.",
		}, []string{"outcome"}),
		prefill: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warmpath_router_prefill_seconds", Help: "Time of prompts on prefill engines. Above the SLO for TTFT: add prefill engines.",
			Buckets: prometheus.ExponentialBuckets(.005, 2, 16),
		}, []string{"pool"}),
		prefillFailures: with.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_router_prefill_failures_total", Help: "Prefill engines that handed no prompt over. Reason nothing: they run without a KV connector; " +
				"left: clients left; else look at those engines.",
		}, []string{"reason"}),
		stranded: with.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_router_stranded_total", Help: "Computed prompts that no decode engine could be made to fetch: their blocks stay in use until the " +
				"prefill engine's lease ends. Growth: decode engines are away.",
		}),
	}
}
