// Package blockkey turns tokens into block keys.
//
// A block key is our own 64-bit chained key of a block: equal prompts up to and including a block have equal keys on
// every engine of a pool, whatever hash vLLM uses. The package also has vLLM's own hash algorithms (vllm.go), with
// which we check ourselves against real engines; nothing in the serving path uses them.
//
// It is pure: no I/O, no clocks, no state.
package blockkey

// Seed keys every chain of an installation: 32 random bytes from KV config, so that nobody outside can forge a
// prefix that another tenant's requests would match.
type Seed [32]byte

// Scope is what all chains of one kind have in common. Two scopes that differ share no keys.
type Scope struct {
	Seed      Seed
	Pool      string // pool id
	BlockSize int    // the pool's canonical block size in tokens
	LoRA      string // adapter name, empty for the base model
	Salt      string // cache_salt of the request, empty for none
}

// Item is a multimodal item of a prompt: it enters the chain in the piece in which it begins.
type Item struct {
	ID    string
	Start int // position of its first placeholder token in the prompt
}
