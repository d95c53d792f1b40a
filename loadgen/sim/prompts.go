package sim

import (
	"slices"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// prompts are a workload's prompts as hashes and tokens, computed once: equal prompts are one, and the turns of a
// conversation that go on from one another are parts of the last. Runs share it and only read it.
type prompts struct {
	size    int // tokens per block
	of      map[promptID]*prompt
	kept    int      // tokens
	scratch []uint32 // those of the prompt in hand, where they are not kept
}

// prompt is what engines and router compute of a prompt.
type prompt struct {
	length int
	keys   []uint64 // block keys of its full blocks
	hashes []uint64 // engine hashes of them
	tokens []uint32 // nil where they are not kept
}

// promptID names a prompt by where its segments lie.
type promptID struct {
	first    *Segment
	segments int
}

// maxKept bounds the tokens that are kept: 128 MiB. Those of further prompts are made anew for each request.
const maxKept = 1 << 25

// newPrompts hashes all prompts of a workload: 16 bytes a block.
func newPrompts(w *Workload, size int) *prompts {
	p := &prompts{size: size, of: map[promptID]*prompt{}}
	for _, stage := range w.Stages {
		for _, s := range stage.Sessions {
			p.session(&s)
		}
	}
	p.scratch = nil
	return p
}

// session hashes the prompts of a session, last turn first: it is likely to hold the others.
func (p *prompts) session(s *Session) {
	var whole Prompt
	var known *prompt
	for i := len(s.Turns) - 1; i >= 0; i-- {
		segments := s.Turns[i].Prompt
		id := idOf(segments)
		switch {
		case p.of[id] != nil:
			whole, known = segments, p.of[id]
		case known != nil && segments.begins(whole):
			p.of[id] = known.part(segments.Len(), p.size)
		default:
			whole, known = segments, p.hash(segments)
			p.of[id] = known
		}
	}
}

func (p *prompts) hash(segments Prompt) *prompt {
	length := segments.Len()
	one := &prompt{length: length}
	var tokens []uint32
	if p.kept+length <= maxKept {
		tokens = segments.Append(make([]uint32, 0, length))
		one.tokens = tokens
		p.kept += length
	} else {
		tokens = segments.Append(p.scratch[:0])
		p.scratch = tokens
	}
	one.keys = blockkey.Keys(make([]uint64, 0, length/p.size), blockkey.Scope{Pool: poolID, BlockSize: p.size}, tokens, nil)
	one.hashes = enginesim.QuickHash{}.Chain(make([]uint64, 0, length/p.size), tokens, p.size)
	return one
}

// part is the prompt's beginning of so many tokens.
func (p *prompt) part(length, size int) *prompt {
	n := length / size
	return &prompt{length: length, keys: p.keys[:n:n], hashes: p.hashes[:n:n], tokens: p.tokens[:min(length, len(p.tokens))]}
}

// begins tells whether another prompt begins with these segments.
func (p Prompt) begins(whole Prompt) bool {
	return len(p) <= len(whole) && slices.Equal(p, whole[:len(p)])
}

func idOf(p Prompt) promptID {
	if len(p) == 0 {
		return promptID{}
	}
	return promptID{&p[0], len(p)}
}

// hashed makes what all runs of the workload with this block size need of its prompts, so that they share it.
func (w *Workload) hashed(size int) *prompts {
	if w.prompts == nil || w.prompts.size != size {
		return newPrompts(w, size)
	}
	return w.prompts
}
