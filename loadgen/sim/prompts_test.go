package sim

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// Whatever is shared between prompts, each has the keys, the engine hashes and the tokens of its own segments.
func TestPromptsAreHashedAsTheirTokens(t *testing.T) {
	workloads := []Workload{small(1), FromTrace(workload.Generate(time.Minute, 3), 1), {Stages: []Stage{{Sessions: []Session{
		agentOf(4, 77), agentOf(1, 5), one(0, Prompt{}, 1), {Turns: []Turn{ // neither turn goes on from the other
			{Prompt: Prompt{{1, 100}, {2, 100}}, Output: 1}, {Prompt: Prompt{{1, 120}, {2, 100}}, Output: 1}, {Prompt: Prompt{{1, 100}}, Output: 1},
		}},
	}}}}}
	for _, w := range workloads {
		for _, size := range []int{16, 64} {
			known := newPrompts(&w, size)
			for _, stage := range w.Stages {
				for _, s := range stage.Sessions {
					for _, turn := range s.Turns {
						tokens := turn.Prompt.Append(nil)
						p := known.of[idOf(turn.Prompt)]
						keys := blockkey.Keys(nil, blockkey.Scope{Pool: poolID, BlockSize: size}, tokens, nil)
						hashes := enginesim.QuickHash{}.Chain(nil, tokens, size)
						if p.length != len(tokens) || !slices.Equal(p.keys, keys) || !slices.Equal(p.hashes, hashes) || !slices.Equal(p.tokens, tokens) {
							t.Fatalf("%v of %d tokens is known as %d tokens, %d keys, %d hashes", turn.Prompt, len(tokens), p.length, len(p.keys), len(p.hashes))
						}
					}
				}
			}
		}
	}
}

// agentOf is a conversation whose prompts grow by such turns.
func agentOf(turns, tokens int) (s Session) {
	var p Prompt
	for i := range turns {
		p = append(slices.Clone(p), Segment{uint64(100 + i), tokens})
		s.Turns = append(s.Turns, Turn{Prompt: p, Output: 3})
	}
	return s
}

// Runs that share prompts come out as runs that hash them for themselves; so do those with tokens made for each request.
func TestSharedPromptsChangeNothing(t *testing.T) {
	own, _ := run(t, tight("warm"), small(7))
	w := small(7)
	w.prompts = newPrompts(&w, 16)
	for range 2 {
		if shared, _ := run(t, tight("warm"), w); !reflect.DeepEqual(own, shared) {
			t.Errorf("shared prompts: %+v, own ones: %+v", shared.Metrics, own.Metrics)
		}
		for _, p := range w.prompts.of {
			p.tokens = nil
		}
	}
	o := tight("warm")
	o.BlockSize = 32
	want, _ := run(t, o, small(7))
	if other, _ := run(t, o, w); !reflect.DeepEqual(want, other) {
		t.Error("prompts of another block size are used")
	}
}
