// Package enginemetrics reads what a vLLM engine says of itself on GET /metrics into typed snapshots, one for each
// data-parallel rank, whatever the engine's version calls its series.
//
// It tells what is absent from what is zero, and refuses to guess: a series that no version of vLLM is known to have
// written is ignored, and a value that cannot be one (NaN, a negative count) counts as absent. It parses text only:
// no I/O of its own, no clocks, no rates; the caller subtracts snapshots and must expect counters to start anew when
// ProcessStart changes.
package enginemetrics

// Reading is a value that the engine may not have given. The zero Reading is "absent", which is not zero.
type Reading[T any] struct {
	Value T
	Known bool
}

// Sleep is the state in vllm:engine_sleep_state; empty where the engine does not tell (before v0.11.1).
type Sleep string

// The states of sleep. DiscardAll means that the KV cache is gone.
const (
	Awake            Sleep = "awake"
	WeightsOffloaded Sleep = "weights_offloaded"
	DiscardAll       Sleep = "discard_all"
)

// Snapshot is what one rank of an engine said at one time.
type Snapshot struct {
	Rank  int    // label `engine`, the data-parallel index; 0 where the series carry none
	Model string // label `model_name`; empty when absent

	Running Reading[float64] // requests in the running batch
	Waiting Reading[float64] // requests that wait, for capacity or deferred
	KVUsage Reading[float64] // 0 to 1, of blocks that are referenced: free cached blocks count as free

	// Counters, in tokens but for Preemptions, since the process began.
	PrefixQueries    Reading[float64]
	PrefixHits       Reading[float64]
	PromptTokens     Reading[float64]
	GenerationTokens Reading[float64]
	Preemptions      Reading[float64]

	Cache CacheConfig
	Sleep Sleep

	// ProcessStart is Unix seconds; absent where several API servers share one exposition. All ranks have the same.
	ProcessStart Reading[float64]
}

// CacheConfig is vllm:cache_config_info. A zero or empty field is one that the engine did not give, or gave as "None".
type CacheConfig struct {
	BlockSize     int // tokens per block
	NumGPUBlocks  int // capacity in blocks
	CacheTokens   int // kv_cache_size_tokens: capacity in tokens
	PrefixCaching Reading[bool]
	HashAlgorithm string // prefix_caching_hash_algo
}
