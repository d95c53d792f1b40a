package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	batches   prometheus.Counter
	events    prometheus.Counter
	blocks    prometheus.Counter
	bad       *prometheus.CounterVec
	ignored   prometheus.Counter
	gaps      prometheus.Counter
	replays   *prometheus.CounterVec
	resets    prometheus.Counter
	engines   *prometheus.GaugeVec
	seconds   *prometheus.CounterVec
	waiting   prometheus.Gauge
	publish   prometheus.Histogram
	published prometheus.Counter
	fenced    prometheus.Counter
	offset    *prometheus.GaugeVec
	owned     prometheus.Gauge
	resumed   prometheus.Histogram
	refused   prometheus.Counter
	snapshots prometheus.Counter

	prediction prometheus.Histogram
	records    prometheus.Counter
	wipes      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "warmpath_ingest_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "warmpath_ingest_" + name, Help: help})
	}
	return &metrics{
		batches: counter("batches_total", "Event batches folded. Standing still under load: look at engines that are silent or gone."),
		events:  counter("events_total", "Events folded."),
		blocks:  counter("blocks_total", "Blocks named by these events."),
		bad: f.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_ingest_bad_total",
			Help: "What engines sent and could not be used, by reason. Not zero: see the log for engine and cause; another vLLM version, or something else publishes on that port. `overflow` is this process being too slow.",
		}, []string{"reason"}),
		ignored: counter("ignored_total", "Unknown tags, fields and surplus items in events, passed over. Growing: engines of a newer vLLM; harmless unless hit ratios fall."),
		gaps:    counter("gaps_total", "Frames that did not follow the one before, each healed by a replay where the engine has one. Growing: the network or this process loses frames."),
		replays: f.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_ingest_replays_total",
			Help: "Replays asked, by outcome. `silent` means that a replay endpoint does not answer: check --kv-events-config of the engine.",
		}, []string{"outcome"}),
		resets: counter("resets_total", "New lives of engines. More than engines restarted: the log says why each began."),
		engines: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "warmpath_ingest_engines",
			Help: "Engines owned, by state. `partial`, `silent`, `blind` and `gone` not zero: their cache is not or not fully known; the engine's record says why.",
		}, []string{"state"}),
		seconds: f.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_ingest_engine_seconds_total",
			Help: "Time that engines spent in each state. The share of `partial` in it is the share of time in which a cache is not known exactly; above a few percent look at the reasons in the engines' records.",
		}, []string{"state"}),
		waiting: gauge("unpublished_bytes", "Changes that wait to be published. Growing: NATS is away or slow; bounded by the size of the engines' caches."),
		publish: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "warmpath_ingest_publish_seconds",
			Help:    "From sending one message of the event log to its acknowledgement, retries included. About 10 s once is a change of the stream's leader.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
		}),
		published: counter("published_bytes_total", "Bytes of event log messages acknowledged."),
		fenced:    counter("fenced_total", "Times that another owner had written to a bucket of ours. A few when replicas change; steadily: two owners disagree, look at the members' clocks and names."),
		offset: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "warmpath_ingest_clock_offset_seconds",
			Help: "Least difference of receive time and the engine's time over the last minute. Beyond 1 s either way: synchronise the clocks of that host.",
		}, []string{"engine"}),
		resumed: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "warmpath_ingest_resumed_seconds",
			Help:    "How long it took, once the event log of a bucket taken over was read, until an engine in it was known exactly again. About 30 s: its replay endpoint does not answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
		refused:   counter("log_refused_total", "Messages and parts of the event log that a takeover could not use. Not zero: damage, or replicas of different releases; the engines are replayed from there on, nothing is to be done."),
		snapshots: counter("snapshots_total", "Snapshots of engines written. Far more than 50 % of the bytes: raise the event stream's size."),
		prediction: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "warmpath_prediction_error_tokens",
			Help:    "Cached tokens predicted for a request less those that its engine reported, where it did. Mostly near 0. A tail above: engines evict between choice and prefill, or prompts are placed in bursts. A tail below: requests find what was not known; look for engines that are partial.",
			Buckets: []float64{-32768, -8192, -2048, -512, -128, -32, 0, 32, 128, 512, 2048, 8192, 32768},
		}),
		records: counter("bad_records_total", "Request records that could not be read. Not zero: routers of another release, or something else publishes on req.*."),
		wipes:   counter("wipes_total", "Times that an engine's cache was found empty though its events had not told, or that it slept and had discarded it. More than engines slept: report it with the log's line."),
		owned:   gauge("buckets_owned", "Buckets that this process publishes. Over all replicas each bucket with engines should be owned once."),
	}
}
