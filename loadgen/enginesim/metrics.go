package enginesim

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The buckets of vLLM's histograms, in seconds.
var (
	ttftBuckets = []float64{
		.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
	}
	itlBuckets = []float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
)

// metrics are vLLM's, by name, type and labels, for one life of an engine. They are in wall-clock seconds: an engine
// at time scale 10 looks ten times as fast. The engine's lock is held during every call.
type metrics struct {
	registry *prometheus.Registry
	seen     Stats // what the counters say already

	running, waiting, usage prometheus.Gauge
	queries, hits           prometheus.Counter
	prompt, generated       prometheus.Counter
	preempted               prometheus.Counter
	stopped, full, aborted  prometheus.Counter
	ttft, itl               prometheus.Histogram
	pinned                  prometheus.Gauge
	expired                 prometheus.Counter
}

func newMetrics(e *Engine) *metrics {
	registry := prometheus.NewRegistry()
	labels := prometheus.Labels{"model_name": e.o.Model, "engine": strconv.Itoa(e.o.Rank)}
	with := promauto.With(prometheus.WrapRegistererWith(labels, registry))
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	success := with.NewCounterVec(prometheus.CounterOpts{
		Name: "vllm:request_success_total", Help: "Requests that ended, by reason.",
	}, []string{"finished_reason"})
	o := e.core.Options()
	with.NewGauge(prometheus.GaugeOpts{
		Name: "vllm:cache_config_info", Help: "The KV cache, in labels.",
		ConstLabels: prometheus.Labels{
			"block_size": strconv.Itoa(o.BlockSize), "num_gpu_blocks": strconv.Itoa(o.Blocks),
			"enable_prefix_caching": "True", "prefix_caching_hash_algo": "sha256_cbor",
			"gpu_memory_utilization": "0.9", "cache_dtype": "auto",
			"kv_cache_size_tokens": strconv.Itoa(o.Blocks * o.BlockSize),
		},
	}).Set(1)
	promauto.With(registry).NewGauge(prometheus.GaugeOpts{
		Name: "process_start_time_seconds", Help: "Start of this life of the engine, Unix seconds.",
	}).Set(float64(e.born.UnixNano()) / 1e9)
	return &metrics{
		registry:  registry,
		running:   gauge("vllm:num_requests_running", "Requests that are computed."),
		waiting:   gauge("vllm:num_requests_waiting", "Requests that wait for blocks or a seat."),
		usage:     gauge("vllm:kv_cache_usage_perc", "Share of KV blocks that requests use, 0 to 1."),
		queries:   counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache."),
		hits:      counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache."),
		prompt:    counter("vllm:prompt_tokens_total", "Prompt tokens whose prefill is done."),
		generated: counter("vllm:generation_tokens_total", "Tokens generated."),
		preempted: counter("vllm:num_preemptions_total", "Requests that lost their blocks to another."),
		stopped:   success.WithLabelValues("stop"),
		full:      success.WithLabelValues("length"),
		aborted:   success.WithLabelValues("abort"),
		pinned:    gauge("enginesim:pinned_kv_blocks", "KV blocks kept for decode engines."),
		expired:   counter("vllm:nixl_num_kv_expired_reqs_total", "Prompts that no decode engine fetched in time."),
		ttft: with.NewHistogram(prometheus.HistogramOpts{
			Name: "vllm:time_to_first_token_seconds", Help: "From arrival to the first token.", Buckets: ttftBuckets,
		}),
		itl: with.NewHistogram(prometheus.HistogramOpts{
			Name: "vllm:inter_token_latency_seconds", Help: "Between two tokens of a request.", Buckets: itlBuckets,
		}),
	}
}

// observe brings gauges and counters to the figures of the core.
func (m *metrics) observe(s Stats) {
	m.running.Set(float64(s.Running))
	m.waiting.Set(float64(s.Waiting))
	m.usage.Set(s.Usage())
	m.pinned.Set(float64(s.Pinned))
	m.queries.Add(float64(s.Queries - m.seen.Queries))
	m.hits.Add(float64(s.Hits - m.seen.Hits))
	m.prompt.Add(float64(s.PromptTokens - m.seen.PromptTokens))
	m.generated.Add(float64(s.GeneratedTokens - m.seen.GeneratedTokens))
	m.preempted.Add(float64(s.Preemptions - m.seen.Preemptions))
	m.seen = s
}

// token counts one token that left at now.
func (m *metrics) token(c *choice, o *Output, now time.Time) {
	if o.Index == 0 {
		m.ttft.Observe(now.Sub(c.arrived).Seconds())
	} else {
		m.itl.Observe(now.Sub(c.last).Seconds())
	}
	c.last = now
	if !o.Finished {
		return
	}
	if c.stops {
		m.stopped.Inc()
	} else {
		m.full.Inc()
	}
}
