package sim

import (
	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// poolID names the one pool of a simulation.
const poolID = "sim"

// index is what ingest, index and scorer do with the engines' events: fold them at once, show them when they are visible.
type index struct {
	size    int
	folds   []*prefix.Engine
	x       *prefix.Index
	ids     []string
	numbers map[string]int // of engines by id
	depths  []prefix.Depth
	scores  []scorerv1.EngineScore
	score   scorerv1.ScoreResponse
}

// batch is what one step of an engine changed.
type batch struct {
	engine int
	runs   []prefix.Run
}

func newIndex(ids []string, size int, blocks []int) *index {
	x := &index{size: size, x: prefix.NewIndex(), ids: ids, numbers: map[string]int{}, scores: make([]scorerv1.EngineScore, len(ids))}
	for i, id := range ids {
		x.folds = append(x.folds, prefix.NewEngine(prefix.EngineOptions{Pool: poolID, BlockSize: size, Blocks: blocks[i]}))
		x.numbers[id] = i
		x.x.Reset(id, 1)
	}
	x.score.BlockSize = uint32(size)
	for i := range x.scores {
		x.scores[i].Engine, x.scores[i].Generation = ids[i], 1
		x.score.Engines = append(x.score.Engines, &x.scores[i])
	}
	return x
}

// fold folds an engine's events; nil where nothing becomes visible by them.
func (x *index) fold(engine int, events []kvevent.Event) *batch {
	b := &batch{engine: engine}
	for i := range events {
		b.runs = x.folds[engine].Fold(&events[i], b.runs)
	}
	if len(b.runs) == 0 {
		return nil
	}
	return b
}

// apply shows what a batch changed.
func (x *index) apply(b *batch) {
	for i := range b.runs {
		x.x.Apply(x.ids[b.engine], &b.runs[i])
	}
}

// ask answers as the scorer does. The answer is valid until the next one.
func (x *index) ask(tokens []uint32) *scorerv1.ScoreResponse {
	s := &x.score
	s.PromptTokens = uint32(len(tokens))
	// The router keeps the keys of requests under way.
	s.Keys = blockkey.Keys(make([]uint64, 0, len(tokens)/x.size), blockkey.Scope{Pool: poolID, BlockSize: x.size}, tokens, nil)
	x.depths = x.x.Match(s.Keys, x.depths[:0])
	for _, d := range x.depths {
		i := x.numbers[d.Engine]
		info, _ := x.x.Engine(d.Engine)
		e := &x.scores[i]
		e.Gpu, e.Any, e.Visible, e.Evicted = uint32(d.GPU), uint32(d.Any), uint64(info.VisibleGPU), info.Evicted
	}
	return s
}
