package bench

import (
	"math/rand/v2"
	"slices"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/prefix"
)

// History is a random life of some engines, made to be checked and not to be quick. Each request stores its prompt from
// the first block that the engine lacks, so that blocks behind a hole get a second copy, as in vLLM; each removal takes
// one copy away.
type History struct {
	Seed    uint64
	Engines int
	Steps   int
	// Interior says that any block may be removed, not only one below which the engine holds nothing.
	Interior bool
}

// A block of the tree of all prompts of a history.
type treeBlock struct {
	parent int // -1 at the start of a prompt
	tokens []uint32
	key    uint64
	hash   uint64
}

const (
	treeBlocks  = 600
	promptLimit = 48 // blocks
)

// life is a history under way.
type life struct {
	History

	r      *rand.Rand
	blocks []treeBlock
	below  [][]int // blocks by parent
	copies [][]int // by engine and block
}

func (h History) begin() *life {
	l := &life{History: h, r: rand.New(rand.NewPCG(h.Seed, 1)), copies: make([][]int, h.Engines), below: make([][]int, treeBlocks)}
	for i := range l.copies {
		l.copies[i] = make([]int, treeBlocks)
	}
	depth := []int{}
	for i := range treeBlocks {
		parent := i - 1
		if i > 0 && l.r.IntN(8) == 0 {
			parent = l.r.IntN(i)
		}
		if parent >= 0 && depth[parent] == promptLimit {
			parent = -1
		}
		b := treeBlock{parent: parent, hash: l.r.Uint64(), tokens: randomTokens(l.r, 1)}
		root, d := scope().Root(), 1
		if parent >= 0 {
			root, d = l.blocks[parent].key, depth[parent]+1
			l.below[parent] = append(l.below[parent], i)
		}
		b.key = blockkey.Extend(root, b.tokens)
		l.blocks, depth = append(l.blocks, b), append(depth, d)
	}
	return l
}

func randomTokens(r *rand.Rand, blocks int) []uint32 {
	tokens := make([]uint32, blocks*blockSize)
	for i := range tokens {
		tokens[i] = r.Uint32N(150_000)
	}
	return tokens
}

// prompt is the way from the start to a block.
func (l *life) prompt(end int) []int {
	var way []int
	for ; end >= 0; end = l.blocks[end].parent {
		way = append(way, end)
	}
	slices.Reverse(way)
	return way
}

// depth is the truth: how many leading blocks of a prompt an engine holds.
func (l *life) depth(engine int, prompt []int) int {
	for i, b := range prompt {
		if l.copies[engine][b] == 0 {
			return i
		}
	}
	return len(prompt)
}

// request serves a prompt: what is missing is stored. It returns nil where nothing is.
func (l *life) request(engine int) *Step {
	prompt := l.prompt(l.r.IntN(len(l.blocks)))
	from := l.depth(engine, prompt)
	if from == len(prompt) {
		return nil
	}
	s := &Step{Engine: engineName(engine), Run: prefix.Run{Copy: prefix.Added, GPU: prefix.Added, Any: prefix.Added, BlockSize: blockSize}}
	if from > 0 {
		s.Run.Parent, s.Run.HasParent = l.blocks[prompt[from-1]].hash, true
	}
	for _, at := range prompt[from:] {
		b := &l.blocks[at]
		s.Run.Keys, s.Run.Hashes, s.Tokens = append(s.Run.Keys, b.key), append(s.Run.Hashes, b.hash), append(s.Tokens, b.tokens...)
		l.copies[engine][at]++
	}
	return s
}

// remove takes one copy of a block away. gone is false while another is left. It returns nil where it found none.
func (l *life) remove(engine int) (step *Step, gone bool) {
	copies := l.copies[engine]
	at := l.r.IntN(treeBlocks)
	for tries := 1; copies[at] == 0; tries++ {
		if tries == 50 {
			return nil, false
		}
		at = l.r.IntN(treeBlocks)
	}
	for held := 0; !l.Interior && held >= 0; { // down to a block below which nothing is held
		below := l.below[at]
		if held = slices.IndexFunc(below, func(b int) bool { return copies[b] > 0 }); held >= 0 {
			at = below[held]
		}
	}
	copies[at]--
	gone = copies[at] == 0
	b := &l.blocks[at]
	return &Step{Engine: engineName(engine), Run: prefix.Run{
		Copy: prefix.Removed, GPU: prefix.Removed, Any: prefix.Removed, Keys: []uint64{b.key}, Hashes: []uint64{b.hash},
	}}, gone
}

// Verdict says how an Index answered the queries of a history.
type Verdict struct {
	Queries int     `json:"queries"` // that some engine could serve in part
	Wrong   int     `json:"wrong"`   // with a wrong depth for at least one engine
	Over    int     `json:"over"`    // of them, with a depth that is too large for at least one engine
	Share   float64 `json:"share"`   // Wrong / Queries
}

// Judge lets an Index live through a history and asks it for a random prompt after every step. Removals of which
// another copy is left are kept from an Index that does not count copies, as the originals' filters do; ours counts.
func (h History) Judge(x Index) Verdict {
	l := h.begin()
	_, counts := x.(*Folded)
	var v Verdict
	var dst []prefix.Depth
	for i := range h.Steps {
		engine := l.r.IntN(h.Engines)
		switch {
		case i%997 == 996:
			clear(l.copies[engine])
			x.Drop(engineName(engine))
		case l.r.IntN(4) == 0:
			if s := l.request(engine); s != nil {
				x.Apply(s)
			}
		default:
			for range 8 {
				if s, gone := l.remove(engine); s != nil && (gone || counts) {
					x.Apply(s)
				}
			}
		}
		dst = l.ask(x, dst[:0], &v)
	}
	v.Share = float64(v.Wrong) / float64(max(v.Queries, 1))
	return v
}

// ask compares one answer with the truth.
func (l *life) ask(x Index, dst []prefix.Depth, v *Verdict) []prefix.Depth {
	prompt := l.prompt(l.r.IntN(len(l.blocks)))
	keys := make([]uint64, 0, len(prompt))
	for _, b := range prompt {
		keys = append(keys, l.blocks[b].key)
	}
	got := map[string]int{}
	dst = x.Match(keys, dst)
	for _, d := range dst {
		got[d.Engine] = d.GPU
	}
	useful, wrong, over := false, false, false
	for e := range l.copies {
		want, answer := l.depth(e, prompt), got[engineName(e)]
		useful = useful || want > 0 || answer > 0
		wrong = wrong || want != answer
		over = over || answer > want
	}
	for _, n := range []struct {
		counts bool
		at     *int
	}{{useful, &v.Queries}, {wrong, &v.Wrong}, {over, &v.Over}} {
		if n.counts {
			*n.at++
		}
	}
	return dst
}
