// Package bench compares prefix.Index with the ways in which others index KV caches, in one process on the same work.
//
// The others are minimal stand-ins written here after the published structure of their originals: no code of theirs, no
// tokenizing, hashing, logging or scoring weights around them. Where their authors had a choice, a stand-in takes the
// faster one. What each claims, and what it cannot answer by its design, is in its own file and held by tests.
package bench

import "github.com/warmpath/warmpath/libs/prefix"

// Step is one event of one engine, in every form that a rival may want: blocks stored below a parent, in order, or
// removed, deepest first. Run has engine hashes and keys; Tokens are those of stored blocks.
type Step struct {
	Engine string
	Run    prefix.Run
	Tokens []uint32
}

// Index knows which engine holds which leading blocks of a prompt. Match appends the depth of every engine that holds
// some; others may be among them with depth 0. Safe for any number of readers beside one writer.
type Index interface {
	Apply(step *Step)
	Drop(engine string)
	Match(keys []uint64, dst []prefix.Depth) []prefix.Depth
}

// Rival is one way to index.
type Rival struct {
	Name  string
	Shape string // what it stands in for
	New   func() Index
	Ours  bool
}

// Published is how many engines a key the two-level LRU remembers unless it is told otherwise.
const Published = 10

// Rivals lists all, ours last.
func Rivals() []Rival {
	return []Rival{
		{Name: "Go maps", Shape: "map of maps behind a lock, linear walk", New: func() Index { return NewGoMaps() }},
		{
			Name: "two-level LRU, as published", Shape: "llm-d-kv-cache of June 2026: 10 pods a key, text for the trace log made eagerly",
			New: func() Index { return NewTwoLevelLRU(Published, true) },
		},
		{
			Name: "two-level LRU, uncapped", Shape: "the same without the cap and without the trace text",
			New: func() Index { return NewTwoLevelLRU(unlimited, false) },
		},
		{
			Name: "ordered walk, as published", Shape: "llm-d-router of September 2026: slice entries, ordered walk, 10 pods a key",
			New: func() Index { return NewOrderedWalk(Published) },
		},
		{Name: "ordered walk, uncapped", Shape: "the same without the cap", New: func() Index { return NewOrderedWalk(unlimited) }},
		{
			Name: "compressed radix tree", Shape: "Dynamo's: many blocks a node, a cutoff for each worker, a map from block to node for each worker",
			New: func() Index { return NewRadix() },
		},
		{Name: "Warmpath, index alone", Shape: "prefix.Index, fed with visible runs as an index shard is", New: func() Index { return Runs{prefix.NewIndex()} }, Ours: true},
		{Name: "Warmpath, fold and index", Shape: "prefix.Engine for each engine in front of it, tokens hashed", New: func() Index { return NewFolded() }, Ours: true},
	}
}

const unlimited = 1 << 20 // entries a key
