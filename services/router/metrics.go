package router

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the router counts. Labels are pools, engine ids and fixed words only.
type metrics struct {
	requests   *prometheus.CounterVec
	ttft       *prometheus.HistogramVec
	stage      *prometheus.HistogramVec
	unknown    *prometheus.CounterVec
	retries    *prometheus.CounterVec
	ejections  *prometheus.CounterVec
	dropped    *prometheus.CounterVec
	inflight   *prometheus.GaugeVec
	uncached   *prometheus.GaugeVec
	queued     *prometheus.GaugeVec
	placements prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: "warmpath_router_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return with.NewGaugeVec(prometheus.GaugeOpts{Name: "warmpath_router_" + name, Help: help}, labels)
	}
	return &metrics{
		requests: counter("requests_total", "Requests by status and outcome. Look at codes of 500 and above, and at outcome lost: "+
			"engines that fail in the middle of an answer.", "code", "outcome"),
		ttft: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warmpath_router_ttft_seconds", Help: "Arrival to first byte of streams. Above the SLO: add prefill engines.",
			Buckets: prometheus.ExponentialBuckets(.005, 2, 16),
		}, []string{"pool"}),
		stage: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warmpath_router_stage_seconds", Help: "Time that the router adds: read and score and pick before the engine is asked. " +
				"A slow score is the scorer's or the tokenizer's.",
			Buckets: prometheus.ExponentialBuckets(.00001, 2, 16),
		}, []string{"stage"}),
		unknown: counter("unknown_scores_total", "Requests routed by approximation because nobody could say their tokens in time. "+
			"Steady growth: look at the scorer and its tokenizer.", "reason"),
		retries:   counter("retries_total", "Attempts on another engine before the first byte. Growth: some engine refuses or is away.", "reason"),
		ejections: counter("ejections_total", "Times an engine was passed over after failures in a row. Look at that engine.", "pool"),
		dropped:   counter("dropped_total", "Records and reports that NATS did not take. Growth: NATS is away or too slow.", "what"),
		inflight:  gauge("inflight_requests", "Requests not finished, in this router's ledger. Above zero without traffic: report it.", "pool"),
		uncached:  gauge("inflight_uncached_tokens", "Prompt tokens being computed, in this router's ledger. Growing: add prefill engines.", "pool"),
		queued:    gauge("queued_requests", "Requests that wait for an engine. Above zero for long: the pool has none.", "pool"),
		placements: with.NewGauge(prometheus.GaugeOpts{
			Name: "warmpath_router_placements", Help: "Block keys that count as cached because their prompt was just placed. Growing without end: requests do not finish; report it.",
		}),
	}
}

// request counts a finished request. Statuses are the engines' and ours: few.
func (m *metrics) request(status int, outcome string) {
	m.requests.WithLabelValues(strconv.Itoa(status), outcome).Inc()
}

func (m *metrics) took(stage string, d time.Duration) {
	m.stage.WithLabelValues(stage).Observe(d.Seconds())
}

func (m *metrics) observe(r *report) {
	uncached := 0
	for _, e := range r.Engines {
		uncached += e.UncachedTokens
	}
	m.inflight.WithLabelValues(r.Pool).Set(float64(r.Inflight))
	m.uncached.WithLabelValues(r.Pool).Set(float64(uncached))
	m.queued.WithLabelValues(r.Pool).Set(float64(r.Queued))
}
