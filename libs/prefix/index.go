package prefix

// EngineInfo is what an Index knows of one engine.
type EngineInfo struct {
	ID         string
	Generation uint64 // as given to Reset or Replace
	VisibleGPU int    // index keys in the gpu set
	VisibleAny int    // index keys in the any set
	Digest     uint64 // of both sets, comparable with EngineStats.Digest
	Evicted    bool   // a gpu copy was removed in this life, as far as the runs applied say
	Surplus    uint64 // keys shown that were shown already
	Missing    uint64 // keys hidden that were not shown
}

// Index holds the visible blocks of all engines of a pool. Safe for concurrent use.
type Index struct{}

// NewIndex returns an Index that knows no engine.
func NewIndex() *Index { return &Index{} }

// Apply shows and hides what the run says. An unknown engine is added.
func (x *Index) Apply(engine string, r *Run) {}

// Reset begins a new life of an engine: its blocks vanish from all answers at once. An unknown engine is added.
func (x *Index) Reset(engine string, generation uint64) {}

// Replace is Reset followed by Apply of each run, but readers see the old state until the new one is complete.
func (x *Index) Replace(engine string, generation uint64, runs func(yield func(*Run) bool)) {}

// Drop forgets an engine: it vanishes from all answers at once. Its rows are freed by Sweep.
func (x *Index) Drop(engine string) {}

// Sweep frees rows of past lives, looking at about max rows, and reports whether none are left.
func (x *Index) Sweep(max int) (done bool) { return true }

// Match appends, for every known engine in order of id, how many leading keys of the chain it holds.
func (x *Index) Match(keys []uint64, dst []Depth) []Depth { return dst }

// Engine tells of one engine, if it is known.
func (x *Index) Engine(id string) (EngineInfo, bool) { return EngineInfo{}, false }

// Engines appends the ids of all known engines, in order.
func (x *Index) Engines(dst []string) []string { return dst }

// Rows is the number of different keys held.
func (x *Index) Rows() int { return 0 }
