// Package prefix knows which engine holds which leading blocks of a prompt.
//
// An Engine folds the events of one engine: it counts physical copies and tells which blocks are visible, that is,
// held with all their ancestors. An Index holds the visible blocks of all engines of a pool and answers Match.
// Because only visible blocks reach it, a holder of block i holds 0..i-1 always, and Match may gallop.
//
// Memory only: no goroutines, no clocks, no I/O, no context.
package prefix

// Change says what a Run does to one of: the copies held, the gpu set, the any set.
type Change uint8

// A Change of copies is Added or Removed; of a set, shown (Added) or hidden (Removed).
const (
	Unchanged Change = iota
	Added
	Removed
)

// Tier is where a copy lies.
type Tier uint8

// The tiers. Everything that is not GPU memory belongs to the any set only.
const (
	GPU Tier = iota
	CPU
	Storage
)

// Run is a row of blocks of one engine to which the same thing happened; the entry of the event log.
// The fields are those of the message Run in proto/warmpath/events/v1.
type Run struct {
	Copy, GPU, Any Change
	Tier           Tier
	Group          int
	Parent         uint64 // engine hash before the first block; only if HasParent; only where Copy is Added
	HasParent      bool
	BlockSize      int      // tokens per block
	Hashes         []uint64 // engine hashes; empty unless Copy is Added
	Keys           []uint64 // chain state at each block's end
	Shown          []uint64 // index keys to show or hide, where Split; else Keys are
	Split          bool
	Clear          bool // every gpu copy is gone and the gpu set is empty; nothing else is set
}

// Depth is the answer for one engine: how many leading blocks of the chain it holds.
type Depth struct {
	Engine string
	GPU    int // in gpu memory
	Any    int // in gpu memory or another tier
}
