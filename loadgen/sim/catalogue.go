package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/lru"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/loadgen/workload"
)

// Scene is a workload with the fleet that it is run on.
type Scene struct {
	Name     string
	What     string // in words, for people
	Variant  string // of the fleet or the arrivals, in words; empty is the scene as it is
	Arrivals string // names what arrives, but for the seed: equal names, equal workloads
	Fleet    Options
	Scale    float64                    // factor on the profile's step times
	Make     func(seed uint64) Workload // arrivals of one seed

	staged *staged // nil where prompts are not those of groups
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
		stagedScene(w1(), front, 1.2),
		stagedScene(w2(), llama, 1),
		stagedScene(w3(), eight, 1.2),
		stagedScene(w5(), eight, 1.2),
		{Name: "W6", What: "random prompts of 5,000 tokens, 45 a second, on 15 prefill and 10 decode engines", Arrivals: "W6",
			Fleet: Options{Prefill: 15, Decode: 10}, Scale: 1, Make: W6},
		{Name: "W6-1024", What: "random prompts of 1,024 tokens, one a second, on one prefill and one decode engine", Arrivals: "W6-1024",
			Fleet: Options{Prefill: 1, Decode: 1}, Scale: 1, Make: W6Slow},
		{Name: "W7", What: "agents with long system prompts and tool calls", Arrivals: "W7", Fleet: agents, Scale: 1, Make: W7},
		{Name: "W10", What: "a synthetic stand-in for a tool and agent trace", Arrivals: "W10", Fleet: eight, Scale: 1, Make: W10},
	}
}

// stagedScene is a scene of prompts in groups.
func stagedScene(s staged, fleet Options, scale float64) Scene {
	return Scene{
		Name: s.name, Arrivals: fmt.Sprintf("%s of %d groups, %d prompts each", s.name, s.groups.groups, s.per),
		What:  fmt.Sprintf("%d groups of %d shared tokens, %d prompts each", s.groups.groups, s.system, s.per),
		Fleet: fleet, Scale: scale, Make: s.workload, staged: &s,
	}
}

// Staged says whether the workload is stages of groups of prompts, whose throughput tells policies apart.
func (s *Scene) Staged() bool { return s.staged != nil }

// WithGroups returns the scene with so many groups and prompts in each; 0 leaves a number as it is. Only W1 to W5 have
// groups.
func (s *Scene) WithGroups(groups, prompts int) (Scene, error) {
	if groups == 0 && prompts == 0 {
		return *s, nil
	}
	if s.staged == nil {
		return *s, fmt.Errorf("workload %s has no groups of prompts", s.Name)
	}
	if groups < 0 || prompts < 0 || groups > maxGroups || prompts > maxGroups {
		return *s, fmt.Errorf("%d groups of %d prompts: each must lie in 1 to %d", groups, prompts, maxGroups)
	}
	g := *s.staged
	g.groups.groups, g.per = cmp.Or(groups, g.groups.groups), cmp.Or(prompts, g.per)
	return stagedScene(g, s.Fleet, s.Scale), nil
}

const maxGroups = 1 << 16 // ids of prompts have 16 bits for each

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
		Arrivals: fmt.Sprintf("%s (%d requests, sum %016x), speed %g, jitter %v", t.Name, len(t.Requests), sum(t), speed, jitter),
		Make: func(seed uint64) Workload {
			if jitter > 0 {
				return FromTrace(t.Jitter(jitter, seed), speed)
			}
			return FromTrace(t, speed)
		},
	}
}

// sum tells traces of one name apart.
func sum(t workload.Trace) uint64 {
	h := uint64(0)
	for i := range t.Requests {
		r := &t.Requests[i]
		for _, v := range []uint64{uint64(r.At), uint64(r.Input), uint64(r.Output)} {
			h = mix64(h ^ v)
		}
		for _, id := range r.Blocks {
			h = mix64(h ^ id)
		}
	}
	return h
}

// Ideal is the share of a workload's prompt tokens that one cache of so many tokens, shared by all and evicting the
// least recently used block, would have held; what cache efficiency is measured against. Turns count in order of their
// earliest time.
func Ideal(w *Workload, tokens, blockSize int) float64 {
	l := lru.New(max(1, tokens/blockSize))
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
		for n < len(keys) && l.Has(keys[n]) {
			n++
		}
		length := p.prompt.Len()
		hit, all = hit+min(n*blockSize, (length-1)/blockSize*blockSize), all+length
		for _, key := range slices.Backward(keys) { // a prefix outlives what follows it
			l.Use(key)
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
