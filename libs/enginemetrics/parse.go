package enginemetrics

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// MaxBytes bounds the text that Parse reads; a vLLM engine writes some 100 KB for each rank.
const MaxBytes = 8 << 20

// MaxRanks bounds the snapshots that one text may give.
const MaxRanks = 1024

// Why Parse refuses a text as a whole.
var (
	ErrTooLarge = errors.New("metrics text is too large")
	ErrNotVLLM  = errors.New("metrics text has no vLLM series")
)

// Parse reads one exposition in the Prometheus text format and returns a snapshot for each rank, lowest rank first;
// at least one when err is nil. A text that cannot be parsed, is larger than MaxBytes, names more than MaxRanks
// ranks, or has no series of vLLM at all is an error and gives no snapshot.
func Parse(r io.Reader) ([]Snapshot, error) {
	limited := &io.LimitedReader{R: r, N: MaxBytes + 1}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(limited)
	if limited.N <= 0 {
		return nil, fmt.Errorf("read engine metrics: %w: over %d bytes", ErrTooLarge, MaxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("parse engine metrics: %w", err)
	}
	ranks := make(map[string]*Snapshot)
	for _, s := range series() {
		if err := s.read(families, ranks); err != nil {
			return nil, fmt.Errorf("read engine metrics: %w", err)
		}
	}
	return finish(ranks, processStart(families))
}

// A field is one figure of a Snapshot and every name that it has had, newest first: the first name with a usable
// value wins, because a version in transition writes the same figure under both.
type field struct {
	names []string
	set   func(*Snapshot, *dto.Metric)
}

// series names all that Parse reads, from the history of vLLM's metrics.
func series() []field {
	return []field{
		{[]string{"vllm:num_requests_running"}, sum(func(s *Snapshot) *Reading[float64] { return &s.Running })},
		// The total is written by every version; the parts (since 2026-04-13) stand in where a relabelling dropped it.
		{
			[]string{"vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason"},
			sum(func(s *Snapshot) *Reading[float64] { return &s.Waiting }),
		},
		{[]string{"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"}, usage},
		{
			[]string{"vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"},
			sum(func(s *Snapshot) *Reading[float64] { return &s.PrefixQueries }),
		},
		{
			[]string{"vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"},
			sum(func(s *Snapshot) *Reading[float64] { return &s.PrefixHits }),
		},
		{[]string{"vllm:prompt_tokens_total"}, sum(func(s *Snapshot) *Reading[float64] { return &s.PromptTokens })},
		{[]string{"vllm:generation_tokens_total"}, sum(func(s *Snapshot) *Reading[float64] { return &s.GenerationTokens })},
		{[]string{"vllm:num_preemptions_total"}, sum(func(s *Snapshot) *Reading[float64] { return &s.Preemptions })},
		{[]string{"vllm:cache_config_info"}, cacheConfig},
		{[]string{"vllm:engine_sleep_state"}, sleep},
	}
}

// read sets the field in each rank from the first of its names that the rank has.
func (f field) read(families map[string]*dto.MetricFamily, ranks map[string]*Snapshot) error {
	done := make(map[string]string) // rank -> the name it was read by
	for _, name := range f.names {
		for _, m := range families[name].GetMetric() {
			if _, ok := value(m); !ok {
				continue
			}
			rank := label(m, "engine")
			if by, ok := done[rank]; ok && by != name {
				continue
			}
			done[rank] = name
			s := ranks[rank]
			if s == nil {
				if len(ranks) == MaxRanks {
					return fmt.Errorf("%w: over %d ranks", ErrTooLarge, MaxRanks)
				}
				s = &Snapshot{}
				ranks[rank] = s
			}
			if s.Model == "" {
				s.Model = label(m, "model_name")
			}
			f.set(s, m)
		}
	}
	return nil
}

// finish orders the ranks. What has no engine label belongs to rank 0 or, of the process-wide figures, to every rank.
func finish(ranks map[string]*Snapshot, start Reading[float64]) ([]Snapshot, error) {
	if len(ranks) == 0 {
		return nil, fmt.Errorf("read engine metrics: %w", ErrNotVLLM)
	}
	if whole, ok := ranks[""]; ok && len(ranks) > 1 {
		delete(ranks, "")
		for _, s := range ranks {
			if s.Cache == (CacheConfig{}) {
				s.Cache = whole.Cache
			}
			s.Sleep = cmp.Or(s.Sleep, whole.Sleep)
		}
	}
	out := make([]Snapshot, 0, len(ranks))
	for name, s := range ranks {
		if name != "" {
			rank, err := strconv.Atoi(name)
			if err != nil || strconv.Itoa(rank) != name || rank < 0 {
				return nil, fmt.Errorf("read engine metrics: label engine is not a rank: %.20q", name)
			}
			s.Rank = rank
		}
		s.ProcessStart = start
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Snapshot) int { return cmp.Compare(a.Rank, b.Rank) })
	return out, nil
}

func processStart(families map[string]*dto.MetricFamily) Reading[float64] {
	for _, m := range families["process_start_time_seconds"].GetMetric() {
		if v, ok := value(m); ok && v > 0 {
			return Reading[float64]{v, true}
		}
	}
	return Reading[float64]{}
}

// sum adds up the series of one rank: parts by reason, or by model name.
func sum(of func(*Snapshot) *Reading[float64]) func(*Snapshot, *dto.Metric) {
	return func(s *Snapshot, m *dto.Metric) {
		r := of(s)
		v, _ := value(m)
		r.Value, r.Known = r.Value+v, true
	}
}

func usage(s *Snapshot, m *dto.Metric) {
	v, _ := value(m)
	s.KVUsage = Reading[float64]{max(s.KVUsage.Value, v), true}
}

// sleep keeps the deepest state that is on: a series stands for each, with value 1 for the one in force.
func sleep(s *Snapshot, m *dto.Metric) {
	if v, _ := value(m); v == 0 {
		return
	}
	order := []Sleep{"", Awake, WeightsOffloaded, DiscardAll}
	if now := Sleep(label(m, "sleep_state")); slices.Index(order, now) > slices.Index(order, s.Sleep) {
		s.Sleep = now
	}
}

// cacheConfig reads the labels, each of them a Python str() of a field.
func cacheConfig(s *Snapshot, m *dto.Metric) {
	s.Cache = CacheConfig{
		BlockSize:     count(label(m, "block_size")),
		NumGPUBlocks:  count(label(m, "num_gpu_blocks")),
		CacheTokens:   count(label(m, "kv_cache_size_tokens")),
		HashAlgorithm: label(m, "prefix_caching_hash_algo"),
	}
	if s.Cache.HashAlgorithm == "None" {
		s.Cache.HashAlgorithm = ""
	}
	switch label(m, "enable_prefix_caching") {
	case "True":
		s.Cache.PrefixCaching = Reading[bool]{true, true}
	case "False":
		s.Cache.PrefixCaching = Reading[bool]{false, true}
	}
}

// count is 0 for "None", for an absent label and for what is no positive number of 31 bits.
func count(text string) int {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return int(n)
}

// value is false for what no gauge or counter of an engine can be. Text in OpenMetrics' way declares a counter
// without its `_total`, which leaves the sample itself untyped.
func value(m *dto.Metric) (float64, bool) {
	var v float64
	switch {
	case m.GetGauge() != nil:
		v = m.GetGauge().GetValue()
	case m.GetCounter() != nil:
		v = m.GetCounter().GetValue()
	case m.GetUntyped() != nil:
		v = m.GetUntyped().GetValue()
	default:
		return 0, false
	}
	return v, v >= 0 && !math.IsInf(v, 0)
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
