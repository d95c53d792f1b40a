// Package kvevent reads and writes the KV-cache event batches that vLLM publishes.
//
// It knows every form that vLLM has put on the wire since v0.9.0: events as msgpack arrays of any length and as maps,
// block hashes as integers of any width and as byte strings. It does not know sockets, sequences, or what an event
// means for a cache: libs/kvwire and libs/prefix do.
//
// Format: vllm/distributed/kv_events.py of the vLLM releases v0.9.0 to v0.29.
package kvevent

// Kind tells what an Event announces.
type Kind uint8

// The events that vLLM publishes.
const (
	Stored  Kind = iota + 1 // BlockStored
	Removed                 // BlockRemoved
	Cleared                 // AllBlocksCleared
)

// Batch is the payload of one message: the events of one scheduler step.
// A Batch may be decoded into again and again; its slices are then reused.
type Batch struct {
	TS      float64 // Unix seconds by the engine's clock
	Rank    int     // data parallel rank
	HasRank bool    // false before vLLM v0.9.1
	Events  []Event
	// Ignored counts what was skipped without harm to the rest: unknown tags and fields, surplus array items.
	Ignored int
	// Bad counts events that could not be read. Errs holds the first few reasons.
	Bad  int
	Errs []error

	arenas
}

// Event is one event. Which fields are set depends on Kind and on the vLLM version; absent is the zero value.
// Its slices belong to the Batch and are valid until the Batch is decoded into again.
type Event struct {
	Kind Kind
	// Hashes are the engine hashes, one a block: the low 64 bits where vLLM sent more (the last 8 bytes),
	// the bits of the value where it sent a negative integer.
	Hashes    []uint64
	Parent    uint64 // hash of the block before the first; only if HasParent
	HasParent bool
	Tokens    []uint32
	// BlockSize is in tokens; 0 in placeholder events, which carry no tokens either.
	BlockSize int
	LoRAID    int64
	HasLoRAID bool
	LoRAName  string
	Medium    string // as sent: "GPU", "CPU", "STORAGE", "cpu"; empty where nil or absent
	// Extra has one entry a block, and only if HasExtra: the field is there and not nil. vLLM that can announce extra
	// keys does so with every GPU block, nil entries for plain text; without HasExtra they are unknown.
	Extra    [][]ExtraKey
	HasExtra bool
	Group    int // kv cache group; only if HasGroup
	HasGroup bool
	SpecKind string // kv_cache_spec_kind
	// SlidingWindow is kv_cache_spec_sliding_window, 0 where absent.
	SlidingWindow int
	Locality      string // "LOCAL", "REMOTE"
	Ownership     string
	SessionID     string
}

// ExtraKey is one item of a block's extra keys, in vLLM's order: LoRA name, multimodal items, cache salt, prompt embeds.
type ExtraKey struct {
	Text string // LoRA name, salt or multimodal identifier
	// Offset of a multimodal item from the start of the block; negative where the item began in an earlier block.
	Offset    int64
	HasOffset bool
	Int       int64 // integer item (LoRA id of old versions); only if IsInt
	IsInt     bool
	Bytes     []byte // digest of prompt embeds; nil for the other kinds
}
