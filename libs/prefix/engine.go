package prefix

import (
	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// EngineOptions is what an Engine must know beside its events.
type EngineOptions struct {
	Seed      blockkey.Seed
	Pool      string // pool id
	BlockSize int    // the pool's canonical block size in tokens
	Blocks    int    // the engine's capacity in blocks; 0 means 1<<16 and that nothing is known of it
}

// EngineStats counts what an Engine holds and what it has passed over.
type EngineStats struct {
	Blocks     int    // blocks of which a copy is held, as far as they can be joined to requests
	Copies     int    // copies of all blocks, in all tiers and groups
	VisibleGPU int    // index keys shown in the gpu set
	VisibleAny int    // index keys shown in the any set
	Waiting    int    // blocks whose tokens wait for an unknown parent
	Digest     uint64 // of both visible sets, independent of order; 0 when they are empty

	UnknownRemovals uint64 // removals of copies that were not counted
	UnknownMedium   uint64 // blocks stored in a tier of no known name
	Unjoinable      uint64 // blocks that no request can be joined to, counted only
	OtherGroups     uint64 // blocks stored for groups that are not full attention, counted only
	Dropped         uint64 // waiting blocks whose tokens were dropped
	Overflow        uint64 // blocks not counted, since more were announced than can be kept
	Malformed       uint64 // events and logged runs that contradict themselves or what came before

	// Partial says why the engine's cache is known only in part; empty where nothing in its events says so.
	Partial string
	// Refused says why blocks of this engine's size cannot be joined to the pool's, naming both sizes; else empty.
	Refused string
}

// Engine folds the events of one engine's life. Not safe for concurrent use.
type Engine struct{}

// NewEngine returns an Engine that holds nothing.
func NewEngine(o EngineOptions) *Engine { return &Engine{} }

// Fold folds one event and appends what changed to runs, which may let the last one grow. Runs own their slices.
func (e *Engine) Fold(ev *kvevent.Event, runs []Run) []Run { return runs }

// Restore folds a logged run: an Engine that is given all runs of another, or a snapshot and all later ones, holds
// what that one holds, but for the tokens of waiting blocks.
func (e *Engine) Restore(r *Run) {}

// Snapshot yields the full state as runs, parents first, copies repeated, until yield returns false.
func (e *Engine) Snapshot(yield func(Run) bool) {}

// Reset begins a new life: nothing is held.
func (e *Engine) Reset() {}

// Copies yields every counted copy with its count, in no order, until yield returns false.
func (e *Engine) Copies(yield func(tier Tier, group int, hash uint64, copies int) bool) {}

// Stats returns the counts. It costs no more than copying them.
func (e *Engine) Stats() EngineStats { return EngineStats{} }
