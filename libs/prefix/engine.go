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
	// Multimodal says that prompts may hold more than text: then blocks announced without extra keys, as vLLM before
	// v0.17 does, cannot be told apart by their tokens. In gpu memory they are counted only; in other tiers, where
	// vLLM never sends extra keys, what they are must be known from gpu memory.
	Multimodal bool
}

// EngineStats counts what an Engine holds and what it has passed over.
type EngineStats struct {
	Blocks     int    // blocks of which a copy is held, as far as they can be joined to requests
	Copies     int    // copies of all blocks, in all tiers and groups
	CopiesGPU  int    // of them, in gpu memory
	VisibleGPU int    // index keys shown in the gpu set
	VisibleAny int    // index keys shown in the any set
	Waiting    int    // blocks whose tokens wait for an unknown parent
	Digest     uint64 // of both visible sets, independent of order; 0 when they are empty
	Evicted    bool   // a gpu copy was removed in this life, or all were: the engine has been full, or cleared

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
type Engine struct {
	o     EngineOptions
	piece int

	blocks  []block
	free    uint32 // list of free blocks, linked by next
	live    int    // blocks in use
	holding int    // of them, with copies
	names   finder // blocks by engine hash
	keys    finder // keyed blocks by key

	groups []int32 // indexed groups seen
	places []place // where blocks have had copies
	more   map[copyOf]uint16
	others map[foreign]uint32 // copies of blocks that are counted only
	total  [tiers]int         // copies by tier

	lists     []uint64 // index keys of blocks that are not plain
	freeLists map[uint32][]uint32
	listed    map[uint64][2]int32 // how many such blocks show a key, in the gpu and the any set

	waiting waiting

	shownGPU, shownAny int
	digest             uint64
	stats              EngineStats
	overfull, kindless bool
	evicted, cut       bool // cut: the log says that more was announced than is kept
	refused            string

	rootLoRA, rootSalt string // of rootState
	rootState          uint64
	rootKnown          bool
	sized              int // block size last found good

	// Scratch.
	sinking []uint32
	shifts  []shift
	spare   entry
	states  []uint64
	chain   []uint64
	keyList []uint64
	own     [1]uint64
	extras  extras
	words   []uint64 // for the slices of the next runs
	fetch   fetch
	fetched int // hashes ahead that are fetched already
}

// NewEngine returns an Engine that holds nothing.
func NewEngine(o EngineOptions) *Engine {
	e := &Engine{o: o, piece: blockkey.PieceSize(o.BlockSize)}
	e.Reset()
	return e
}

// Reset begins a new life: nothing is held and nothing has been counted.
func (e *Engine) Reset() {
	*e = Engine{
		o: e.o, piece: e.piece,
		blocks:    append(e.blocks[:0], block{flags: keyed | visGPU | visAny}, block{}),
		keys:      finder{byKey: true},
		places:    []place{{tier: GPU}, {tier: CPU}},
		more:      map[copyOf]uint16{},
		others:    map[foreign]uint32{},
		freeLists: map[uint32][]uint32{},
		listed:    map[uint64][2]int32{},
		waiting:   newWaiting(e.capacity()),
	}
}

func (e *Engine) capacity() int {
	if e.o.Blocks > 0 {
		return e.o.Blocks
	}
	return 1 << 16
}

// room reports whether n more blocks may be kept: 32 times the capacity, since other tiers are larger than gpu memory
// and some announce no removals.
func (e *Engine) room(n int) bool {
	return e.live+len(e.others)+n <= min(32*max(e.capacity(), 1<<12), maxBlocks-int(inner))
}

// Fold folds one event and appends what changed to runs, which may let the last one grow, or its last block begin the
// next one. Runs own their slices; those
// of one Engine share memory in pieces of 4 KiB, so nearly all of them cost no allocation.
func (e *Engine) Fold(ev *kvevent.Event, runs []Run) []Run {
	o := output{runs: runs, words: &e.words}
	e.fetched = 0
	e.fold(ev, &o)
	return o.runs
}

// FoldAll folds events one after another as Fold does, and is faster where they are many and name few blocks each:
// what they will touch is fetched from memory ahead, for several events at once.
func (e *Engine) FoldAll(events []kvevent.Event, runs []Run) []Run {
	o := output{runs: runs, words: &e.words}
	near := 0 // events before it are fetched
	for i := range events {
		if i >= near {
			near = e.fetchEvents(events, i)
		}
		e.fold(&events[i], &o)
	}
	return o.runs
}

func (e *Engine) fold(ev *kvevent.Event, o *output) {
	o.want = len(ev.Hashes)
	switch ev.Kind {
	case kvevent.Stored:
		e.store(ev, o)
	case kvevent.Removed:
		e.remove(ev, o)
	case kvevent.Cleared:
		e.clear(o)
	default:
		e.stats.Malformed++
	}
}

// Stats returns the counts. It costs no more than copying them.
func (e *Engine) Stats() EngineStats {
	s := e.stats
	s.Blocks, s.Waiting, s.Digest = e.holding, len(e.waiting.by), e.digest
	s.VisibleGPU, s.VisibleAny = e.shownGPU, e.shownAny
	for _, n := range e.total {
		s.Copies += n
	}
	s.CopiesGPU = e.total[GPU]
	s.Evicted, s.Refused = e.evicted, e.refused
	switch {
	case e.overfull:
		s.Partial = "more copies announced than the engine has blocks"
	case s.Overflow != 0 || e.cut:
		s.Partial = "more blocks announced than can be kept"
	case e.kindless:
		s.Partial = "several cache groups without a kind"
	}
	return s
}
