// Package fleet knows which engines and which of our own processes exist.
//
// It owns the records of KV buckets engines, members, drain and config, the ids in them, and their watch. It reaches
// NATS through libs/bus only. How engines are found (flags, files, pods) is not its business: ingest writes the records.
package fleet

// State is what ingest knows of an engine's cache.
type State string

// The states of an engine. Only the owner of its bucket changes them.
const (
	OK      State = "ok"      // the index knows the cache exactly
	Partial State = "partial" // known in part only; never over-claims
	Blind   State = "blind"   // publishes no events
	Silent  State = "silent"  // should publish events, but none arrive
	Gone    State = "gone"    // no longer there
)

// Role is what an engine may be used for.
type Role string

// The roles of an engine.
const (
	Prefill Role = "prefill"
	Decode  Role = "decode"
	Both    Role = "both"
)

// Sidecar is who stands before an engine and has prompts computed for it elsewhere.
type Sidecar string

// The sidecars.
const (
	NoSidecar Sidecar = ""
	LLMD      Sidecar = "llm-d" // does what the header x-prefiller-host-port asks for
)

// Engine is the record of one engine in KV engines, key `<pool>.<engine>`.
type Engine struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"` // as the operator knows it: pod name or host:port, with -r<rank> for ranks
	Pool       string  `json:"pool"`
	URL        string  `json:"url"` // OpenAI base URL without /v1
	Role       Role    `json:"role"`
	Rank       int     `json:"rank"`
	Ranks      int     `json:"ranks"` // data parallel size; 1 without
	Sidecar    Sidecar `json:"sidecar,omitempty"`
	Models     []Model `json:"models"`
	BlockSize  int     `json:"block_size"`
	Blocks     int     `json:"blocks"` // num_gpu_blocks: capacity
	Generation uint64  `json:"generation"`
	State      State   `json:"state"`
	Why        string  `json:"why,omitempty"`
}

// Model is one entry of an engine's /v1/models.
type Model struct {
	ID          string `json:"id"`
	Parent      string `json:"parent,omitempty"` // set for LoRA adapters
	MaxModelLen int    `json:"max_model_len,omitempty"`
}

// Pool is the record of a pool in KV config, key `pool.<pool>`; written once, by the first engine.
type Pool struct {
	ID        string `json:"id"`
	Model     string `json:"model"` // the base model's id
	BlockSize int    `json:"block_size"`
}

// Member is the record of one of our processes in KV members, key `<service>.<instance>`.
type Member struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	Address  string `json:"address"` // host:port of its gRPC or HTTP server
	// Buckets that an index member answers for: bit b for bucket b.
	Buckets uint64 `json:"buckets,omitempty"`
	// Applied is the stream sequence that an index member has applied.
	Applied uint64 `json:"applied,omitempty"`
	Ready   bool   `json:"ready"`
}
