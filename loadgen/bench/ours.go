package bench

import (
	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
)

// blockSize is the tokens of a block, everywhere here.
const blockSize = 16

func scope() blockkey.Scope { return blockkey.Scope{Pool: "bench", BlockSize: blockSize} }

// Runs is a prefix.Index that is given steps as if they were runs of the event log, as an index shard is. That holds
// for steps that show parents first and hide the deepest block first; others need Folded.
type Runs struct{ *prefix.Index }

// Apply applies the step's run.
func (x Runs) Apply(s *Step) { x.Index.Apply(s.Engine, &s.Run) }

// Folded is a prefix.Index with a prefix.Engine for each engine in front of it: what ingest and an index shard do
// together, with nothing between them. Exact.
type Folded struct {
	x       *prefix.Index
	engines map[string]*prefix.Engine
	event   kvevent.Event
	runs    []prefix.Run
}

// NewFolded returns one that knows no engine.
func NewFolded() *Folded {
	return &Folded{x: prefix.NewIndex(), engines: map[string]*prefix.Engine{}}
}

// Apply folds the step as the event that an engine sends: hashes and tokens, no keys.
func (f *Folded) Apply(s *Step) {
	e := f.engines[s.Engine]
	if e == nil {
		e = prefix.NewEngine(prefix.EngineOptions{Pool: scope().Pool, BlockSize: blockSize, Blocks: 1 << 21})
		f.engines[s.Engine] = e
	}
	f.event = kvevent.Event{Kind: kvevent.Removed, Hashes: s.Run.Hashes}
	if s.Run.Copy == prefix.Added {
		f.event.Kind, f.event.BlockSize, f.event.Tokens = kvevent.Stored, blockSize, s.Tokens
		f.event.Parent, f.event.HasParent = s.Run.Parent, s.Run.HasParent
	}
	f.runs = e.Fold(&f.event, f.runs[:0])
	for i := range f.runs {
		f.x.Apply(s.Engine, &f.runs[i])
	}
}

// Drop forgets the engine and its fold.
func (f *Folded) Drop(engine string) {
	delete(f.engines, engine)
	f.x.Drop(engine)
}

// Sweep frees rows of engines that were dropped; it reports whether all were looked at.
func (f *Folded) Sweep(rows int) bool { return f.x.Sweep(rows) }

// Match asks the Index.
func (f *Folded) Match(keys []uint64, dst []prefix.Depth) []prefix.Depth { return f.x.Match(keys, dst) }
