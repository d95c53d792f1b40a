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
// The fields are those of the message Run in proto/warmpath/events/v1. It says one of:
//
//	copies added     Copy Added: Hashes, and Keys where the blocks have keys; each block is the parent of the next, or
//	                 all have Parents, as where many prompts grow by a block each.
//	                 Without Keys the blocks are only counted: with Split for ever, with HasParent until the parent is
//	                 announced, else until their tokens are. Without Hashes: the group is one of those that must
//	                 hold a block.
//	copies removed   Copy Removed: Keys; Hashes too where a key alone does not name the block, alone where it has none.
//	blocks named     Copy Unchanged, Hashes and Keys: blocks that wait, or of which no copy is left, have these keys.
//	sets changed     Copy Unchanged, Keys only: index keys to show or hide.
//	group unknown    Split, and neither Hashes nor Keys: a group beside others does not say what it is.
//	all gpu cleared  Clear.
//
// Any of the first three may show or hide its blocks as well. Entries are in the order in which they must be applied
// for a holder of block i to hold 0..i-1 between any two: shown parents first, hidden deepest first.
// An engine with one set, since it never announced another tier, changes GPU and Any together.
type Run struct {
	Copy, GPU, Any Change
	Tier           Tier
	Group          int
	Parent         uint64 // engine hash before the first block; only if HasParent; only with Hashes that are not removed
	HasParent      bool
	Parents        []uint64 // engine hash before each block, where they do not follow one another; then not HasParent
	BlockSize      int      // tokens per block; 0 where Hashes are empty or have no keys
	Hashes         []uint64 // engine hashes
	Keys           []uint64 // chain state at each block's end
	Shown          []uint64 // index keys of these blocks, all of them where copies are added; only if Split
	Split          bool     // Shown stands in for Keys as what to show or hide, also when it is empty
	// Clear says that every gpu copy is gone and both sets are empty: what other tiers still hold is shown again by
	// the runs that follow. Nothing else is set. To an engine of which nothing is known it says that it has evicted.
	Clear bool
}

// Depth is the answer for one engine: how many leading blocks of the chain it holds.
type Depth struct {
	Engine string
	GPU    int // in gpu memory
	Any    int // in gpu memory or another tier
}
