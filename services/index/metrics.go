package index

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	lag       prometheus.Histogram
	match     prometheus.Histogram
	refused   *prometheus.CounterVec
	fenced    prometheus.Counter
	holes     prometheus.Counter
	resets    prometheus.Counter
	unequal   prometheus.Counter
	replaced  prometheus.Counter
	asked     prometheus.Counter
	lost      prometheus.Counter
	truncated prometheus.Counter
	uncovered prometheus.Gauge
	skipped   prometheus.Counter
	dropped   prometheus.Counter
	engines   prometheus.Gauge
	rows      prometheus.Gauge
	applied   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "warmpath_index_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "warmpath_index_" + name, Help: help})
	}
	return &metrics{
		lag: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "warmpath_index_lag_seconds",
			Help:    "Received by ingest to visible for Match, of every delta read live. A p99 above 25 ms: look at ingest, NATS and this process's CPU. Includes the difference of the two clocks.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18),
		}),
		match: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "warmpath_index_match_seconds",
			Help:    "Duration of Match without the network. A p99 above 1 ms: look at this process's CPU.",
			Buckets: prometheus.ExponentialBuckets(0.000001, 2, 18),
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "warmpath_index_refused_total",
			Help: "Messages and parts that could not be used, by reason. Not zero: an ingest of another version, or somebody else writes to the event stream.",
		}, []string{"reason"}),
		fenced:    counter("fenced_messages_total", "Messages of an owner that had been superseded, ignored. Not zero: an ingest writes without the fence."),
		holes:     counter("holes_total", "Buckets read again because a message of their owner was missing. Not zero: the stream lost messages; look at the NATS store."),
		lost:      counter("lost_messages_total", "Places where messages are missing in the stream itself; the bucket's engines are unknown until their next reset or snapshot. Not zero: look at the NATS store."),
		truncated: counter("truncated_buckets_total", "Buckets whose log no longer reached back to their position when they were read. Not zero: the stream is too small for its load, or ingest was away for long; give the stream more bytes."),
		replaced:  counter("replaced_states_total", "Snapshots that changed what was held here. A few follow an outage of NATS, which keeps ingest from publishing each change; else look at the unequal digests."),
		asked:     counter("asks_total", "Questions to the owner of a bucket for fresh snapshots. Growing for minutes: ingest does not answer; look at its log."),
		uncovered: gauge("uncovered_buckets", "Owned buckets that are not answered for, as the log does not tell all of their engines. Above zero for more than seconds: ingest, which is asked for snapshots, does not send them; answers are partial unless another replica has the bucket."),
		resets:    counter("stream_resets_total", "Times the stream was another and everything was dropped. Not zero: somebody deleted the stream, or NATS lost its store."),
		unequal:   counter("unequal_digests_total", "Engines whose state here was not what their owner published. Not zero: report it; the answers were wrong until the snapshot that was asked for."),
		skipped:   counter("skipped_parts_total", "Deltas of engines whose state is not known here, ignored until their next reset or snapshot. Growing steadily: look at ingest, which should publish one when asked."),
		dropped:   counter("dropped_snapshots_total", "Snapshots that came incomplete, ignored. Some are normal when ingest restarts."),
		engines:   gauge("engines", "Engines known. Fewer for minutes than ingest owns: look at what was refused or skipped."),
		rows:      gauge("rows", "Block keys held, which this process's memory follows."),
		applied:   gauge("applied_sequence", "Stream sequence applied. It should follow that of the stream; if it stands still, restart this process."),
	}
}
