package sim

import (
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
	lives   []uint64 // of engines, as they are known
	x       *prefix.Index
	ids     []string
	numbers map[string]int // of engines by id
	depths  []prefix.Depth
	scores  []scorerv1.EngineScore
	score   scorerv1.ScoreResponse
	spare   []*batch
}

// batch is what one step of an engine changed. It is used again when it has been applied.
type batch struct {
	engine int
	life   uint64
	runs   []prefix.Run
}

func newIndex(ids []string, size int, blocks []int) *index {
	x := &index{size: size, x: prefix.NewIndex(), ids: ids, numbers: map[string]int{}, scores: make([]scorerv1.EngineScore, len(ids))}
	for i, id := range ids {
		x.folds = append(x.folds, prefix.NewEngine(prefix.EngineOptions{Pool: poolID, BlockSize: size, Blocks: blocks[i]}))
		x.numbers[id], x.lives = i, append(x.lives, 1)
		x.x.Reset(id, 1)
	}
	x.score.BlockSize = uint32(size)
	for i := range x.scores {
		x.scores[i].Engine, x.scores[i].Generation = ids[i], 1
		x.score.Engines = append(x.score.Engines, &x.scores[i])
	}
	return x
}

// add makes room for the engine of a number and id that has come. One whose prompts share nothing has only a name.
func (x *index) add(number int, id string, blocks int, shared bool) {
	for len(x.ids) <= number { // engines that have not come yet
		x.ids, x.lives, x.folds = append(x.ids, ""), append(x.lives, 1), append(x.folds, nil)
	}
	x.ids[number], x.numbers[id] = id, number
	if shared {
		x.folds[number] = prefix.NewEngine(prefix.EngineOptions{Pool: poolID, BlockSize: x.size, Blocks: blocks})
		x.x.Reset(id, 1)
		x.list()
	}
}

// remove forgets what an engine that is gone for good has held.
func (x *index) remove(number int) {
	if x.folds[number] != nil {
		x.folds[number] = nil
		x.x.Drop(x.ids[number])
		x.list()
	}
}

// list makes the answers' places anew: those of the engines that there are.
func (x *index) list() {
	x.scores, x.score.Engines = make([]scorerv1.EngineScore, len(x.ids)), nil
	for i := range x.scores {
		if x.folds[i] != nil {
			x.scores[i].Engine, x.scores[i].Generation = x.ids[i], 1
			x.score.Engines = append(x.score.Engines, &x.scores[i])
		}
	}
}

// fold folds an engine's events; nil where nothing becomes visible by them.
func (x *index) fold(engine int, life uint64, events []kvevent.Event) *batch {
	b := &batch{}
	if n := len(x.spare); n > 0 {
		b, x.spare = x.spare[n-1], x.spare[:n-1]
	}
	b.engine, b.life, b.runs = engine, life, x.folds[engine].FoldAll(events, b.runs[:0])
	if len(b.runs) == 0 {
		x.spare = append(x.spare, b)
		return nil
	}
	return b
}

// apply shows what a batch changed, and says whether it is the first of a new life. One of an earlier life is late.
func (x *index) apply(b *batch) (began bool) {
	if began = b.life > x.lives[b.engine]; began {
		x.lives[b.engine], x.scores[b.engine].Generation = b.life, b.life
		x.x.Reset(x.ids[b.engine], b.life)
	}
	for i := range b.runs {
		if x.folds[b.engine] != nil && b.life == x.lives[b.engine] {
			x.x.Apply(x.ids[b.engine], &b.runs[i])
		}
	}
	clear(b.runs)
	x.spare = append(x.spare, b)
	return began
}

// ask answers as the scorer does, for a prompt of so many tokens and these block keys. The answer is valid until the
// next one; the router keeps the keys of requests under way.
func (x *index) ask(tokens int, keys []uint64) *scorerv1.ScoreResponse {
	s := &x.score
	s.PromptTokens, s.Keys = uint32(tokens), keys
	x.depths = x.x.Match(s.Keys, x.depths[:0])
	for _, d := range x.depths {
		i := x.numbers[d.Engine]
		info, _ := x.x.Engine(d.Engine)
		e := &x.scores[i]
		e.Gpu, e.Any, e.Visible, e.Evicted = uint32(d.GPU), uint32(d.Any), uint64(info.VisibleGPU), info.Evicted
	}
	return s
}
