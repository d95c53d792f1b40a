package router

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the router counts. Labels are pools, engine ids and fixed words only.
type metrics struct {
	splitMetrics

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
	denied     *prometheus.CounterVec
	unreadKeys prometheus.Counter
	overBudget *prometheus.CounterVec
	blind      prometheus.Counter
	tokens     *prometheus.CounterVec
	wait       *prometheus.HistogramVec
	prediction *prometheus.GaugeVec
	parity     *prometheus.CounterVec
	distrusted *prometheus.GaugeVec
	tenants    tenantLabels
	peers      prometheus.Gauge
	stalled    *prometheus.CounterVec
	unscraped  prometheus.Counter
	refused    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: "warmpath_router_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return with.NewGaugeVec(prometheus.GaugeOpts{Name: "warmpath_router_" + name, Help: help}, labels)
	}
	m := &metrics{
		splitMetrics: newSplitMetrics(reg),
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
		peers: with.NewGauge(prometheus.GaugeOpts{
			Name: "warmpath_router_peers", Help: "Other routers whose requests count here. Below the number of the others: look at NATS between them.",
		}),
		stalled: counter("stalled_requests_total", "Requests called off because their engine said nothing for too long. Look at that engine: it hangs.", "pool"),
		unscraped: with.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_router_failed_scrapes_total", Help: "Engines' /metrics that could not be read; requests go on without. Growth: look at the engine that the log names.",
		}),
		refused: counter("peer_news_refused_total", "What peers told and was not taken. Old ones now and then are harmless; "+
			"steady growth: two routers have one --instance, or different versions.", "reason"),
		dropped:  counter("dropped_total", "Records, reports and ledger news that NATS did not take. Growth: NATS is away or too slow.", "what"),
		inflight: gauge("inflight_requests", "Requests not finished, in this router's ledger. Above zero without traffic: report it.", "pool"),
		uncached: gauge("inflight_uncached_tokens", "Prompt tokens being computed, in this router's ledger. Growing: add prefill engines.", "pool"),
		queued:   gauge("queued_requests", "Requests that wait for an engine. Above zero for long: the pool has none.", "pool"),
		placements: with.NewGauge(prometheus.GaugeOpts{
			Name: "warmpath_router_placements", Help: "Block keys that count as cached because their prompt was just placed. Growing without end: requests do not finish; report it.",
		}),
		denied: counter("denied_total", "Requests without a valid API key. Growth: a client has a wrong, revoked or expired key, or somebody guesses.", "reason"),
		unreadKeys: with.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_router_unread_keys_total", Help: "Times that the file of API keys could not be read; those known stay in force. Growing: mend the file, the log says where.",
		}),
		overBudget: counter("over_budget_total", "Requests refused because the tenant's budget of the minute was spent. The tenant's business, or a budget that is too small.", "tenant"),
		blind: with.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_router_blind_budgets_total", Help: "Requests whose tenant's budget could not be leased from NATS, so that this router spent its own share. Growth: look at NATS.",
		}),
		tokens: counter("tokens_total", "Tokens used by tenants, by kind: prompt, of these cached, completion. Never an alarm: for bills and capacity.", "tenant", "model", "kind"),
		wait: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "warmpath_router_queue_seconds", Help: "Time that requests waited in the router for room on an engine. High: add engines.",
			Buckets: prometheus.ExponentialBuckets(.001, 4, 9),
		}, []string{"pool"}),
		parity: counter("token_parity_total", "Prompts that were tokenized for routing, by whether the engine then counted as many tokens. "+
			"Any growth of `different`: the tokenizer or the chat template in use is not the engines'.", "pool", "api", "outcome"),
		distrusted: gauge("distrusted_tokens", "1 where over 1 % of an API's prompts had other counts of tokens than foreseen, so that they are routed unscored. "+
			"Give the scorer the engines' own tokenizer, or engines that render.", "pool", "api"),
		prediction: gauge("ttft_prediction_error", "Median relative error of the predicted TTFT over the latest requests. Above 0.5 for long: the engines do other work than ours, or share their GPUs.", "pool"),
	}
	return m
}

// mostTenants bounds the tenants that metrics name; those above it are together.
const mostTenants = 500

// tenantLabels are the tenants that metrics name.
type tenantLabels struct {
	mu    sync.Mutex
	named map[string]bool
}

// tenant is the label of a tenant: its name, `none` without a key, `other` when there are too many.
func (m *metrics) tenant(name string) string {
	if name == "" {
		return "none"
	}
	l := &m.tenants
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.named[name] {
		return name
	}
	if len(l.named) >= mostTenants {
		return "other"
	}
	if l.named == nil {
		l.named = make(map[string]bool)
	}
	l.named[name] = true
	return name
}

// used counts the tokens of a request that has ended. The model is one that the fleet knows.
func (m *metrics) used(tenant, model string, prompt, cached, output int) {
	m.tokens.WithLabelValues(tenant, model, "prompt").Add(float64(max(0, prompt)))
	m.tokens.WithLabelValues(tenant, model, "cached").Add(float64(max(0, cached)))
	m.tokens.WithLabelValues(tenant, model, "completion").Add(float64(max(0, output)))
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
