package scorer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/warmpath/warmpath/services/scorer/internal/tokens"
)

type metrics struct {
	scores   *prometheus.CounterVec
	unknown  *prometheus.CounterVec
	partial  prometheus.Counter
	failures prometheus.Counter
	tokenize prometheus.Histogram
	match    prometheus.Histogram
}

// newMetrics registers the scorer's metrics; reg may be nil. cacheBytes and uncovered are called at each scrape.
func newMetrics(reg prometheus.Registerer, cacheBytes, uncovered func() float64) *metrics {
	auto := promauto.With(reg)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "warmpath_scorer_cache_bytes",
		Help: "Token ids kept for prompts that come again, in bytes. At its bound all the time: the cache turns over.",
	}, cacheBytes)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "warmpath_scorer_uncovered_buckets",
		Help: "Buckets of 64 that no ready index member answers for. Above 0: every answer is partial; look at the index.",
	}, uncovered)
	return &metrics{
		scores: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_scorer_scores_total",
			Help: "Score calls by outcome (known, partial, unknown) and where the tokens came from (ids, cache, local, render, tokenize). Many partial or unknown: the counters of these say why.",
		}, []string{"outcome", "source"}),
		unknown: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_scorer_unknown_total",
			Help: "Prompts without tokens, by reason; the router approximates. 'tokenizer ...': look at the engines' API servers.",
		}, []string{"reason"}),
		partial: auto.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_scorer_partial_answers_total",
			Help: "Answers that lack a bucket. Rising: an index shard is away or slower than the deadline.",
		}),
		failures: auto.NewCounter(prometheus.CounterOpts{
			Name: "warmpath_scorer_match_failures_total",
			Help: "Calls of index members that failed or were too late. Harmless where another replica answered instead.",
		}),
		tokenize: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "warmpath_scorer_tokenize_seconds",
			Help:    "Time to the tokens of a prompt, from any source. Near 25 ms: look at the engines' API servers.",
			Buckets: []float64{.0001, .0003, .001, .002, .004, .008, .015, .025, .05, .1, .5},
		}),
		match: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "warmpath_scorer_match_seconds",
			Help:    "Time from the block keys to the merged answer of the index.",
			Buckets: []float64{.0001, .0002, .0004, .0008, .0015, .003, .005, .01},
		}),
	}
}

func (m *metrics) known(origin tokens.Origin, partial bool, tokenize, match time.Duration) {
	outcome := "known"
	if partial {
		outcome = "partial"
		m.partial.Inc()
	}
	m.scores.WithLabelValues(outcome, string(origin)).Inc()
	m.tokenize.Observe(tokenize.Seconds())
	m.match.Observe(match.Seconds())
}

func (m *metrics) notKnown(reason tokens.Reason) {
	m.scores.WithLabelValues("unknown", "").Inc()
	m.unknown.WithLabelValues(string(reason)).Inc()
}
