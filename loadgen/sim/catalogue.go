package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// Scene is a workload with the fleet that it is run on.
type Scene struct {
	Name  string
	What  string // in words, for people
	Fleet Options
	Scale float64                    // factor on the profile's step times
	Make  func(seed uint64) Workload // arrivals of one seed
}

// Catalogue returns the scenes of the reference workloads that need no trace, in order.
func Catalogue() []Scene {
	eight := Options{Pods: 8, Profile: enginesim.Qwen3_32B_TP2_H100}
	front := eight
	front.FrontEnd = 200 * time.Millisecond // as in the test bed of the published figures
	llama := Options{Pods: 4, Profile: enginesim.Llama31_70B_TP4, FrontEnd: 130 * time.Millisecond}
	agents := eight
	agents.KV = 2_000_000 / float64(agents.Profile.KVTokens)
	return []Scene{
		{"W1", "150 groups of 6,000 shared tokens", front, 1.2, W1},
		{"W2", "83 groups of 8,000 shared tokens on Llama-3.1-70B", llama, 1, W2},
		{"W3", "150 groups of 2,000 shared tokens", eight, 1.2, W3},
		{"W5", "250 groups of 16,000 shared tokens", eight, 1.2, W5},
		{"W6", "random prompts of 5,000 tokens, 45 a second, on 15 prefill and 10 decode engines", Options{Prefill: 15, Decode: 10}, 1, W6},
		{"W6-1024", "random prompts of 1,024 tokens, one a second, on one prefill and one decode engine", Options{Prefill: 1, Decode: 1}, 1, W6Slow},
		{"W7", "agents with long system prompts and tool calls", agents, 1, W7},
		{"W10", "a synthetic stand-in for a tool and agent trace", eight, 1, W10},
	}
}

// Find returns the scene of that name, or an error that lists the names.
func Find(scenes []Scene, name string) (Scene, error) {
	i := slices.IndexFunc(scenes, func(s Scene) bool { return s.Name == name })
	if i >= 0 {
		return scenes[i], nil
	}
	var names []string
	for _, s := range scenes {
		names = append(names, s.Name)
	}
	return Scene{}, fmt.Errorf("workload %q is none of %s", name, strings.Join(names, ", "))
}

// Replay is a scene of a trace: speed times as fast, each arrival later by up to jitter.
func Replay(name string, t workload.Trace, pods int, speed float64, jitter time.Duration) Scene {
	return Scene{
		Name: name, What: t.Name, Scale: 1, Fleet: Options{Pods: pods, Profile: enginesim.Qwen3_32B_TP2_H100},
		Make: func(seed uint64) Workload {
			if jitter > 0 {
				return FromTrace(t.Jitter(jitter, seed), speed)
			}
			return FromTrace(t, speed)
		},
	}
}

// Ideal is the share of a workload's prompt tokens that one cache of so many tokens, shared by all and evicting the
// least recently used block, would have held; what cache efficiency is measured against. Turns count in order of their
// earliest time.
func Ideal(w *Workload, tokens, blockSize int) float64 {
	l := newLRU(max(1, tokens/blockSize))
	var prompts []timed
	for i, stage := range w.Stages {
		for _, s := range stage.Sessions {
			at := s.At
			for _, t := range s.Turns {
				at += t.Gap
				prompts = append(prompts, timed{i, at, t.Prompt})
			}
		}
	}
	slices.SortStableFunc(prompts, func(a, b timed) int {
		if a.stage != b.stage {
			return a.stage - b.stage
		}
		return int(a.at - b.at)
	})
	hit, all := 0, 0
	for _, p := range prompts {
		keys := p.prompt.blocks(blockSize)
		n := 0
		for n < len(keys) && l.has(keys[n]) {
			n++
		}
		length := p.prompt.Len()
		hit, all = hit+min(n*blockSize, (length-1)/blockSize*blockSize), all+length
		for _, key := range slices.Backward(keys) { // a prefix outlives what follows it
			l.use(key)
		}
	}
	return float64(hit) / float64(max(1, all))
}

type timed struct {
	stage  int
	at     time.Duration
	prompt Prompt
}

// blocks names the whole blocks of a prompt: equal names, equal prompts up to and including the block.
func (p Prompt) blocks(size int) (keys []uint64) {
	chain, end, at := uint64(0), 0, 0
	for _, s := range p {
		end += s.Tokens
		for ; at+size <= end; at += size {
			keys = append(keys, mix64(chain^mix64(s.ID)+uint64(at)))
		}
		chain = mix64(chain ^ mix64(s.ID)*31 + uint64(s.Tokens))
	}
	return keys
}
