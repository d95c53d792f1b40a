package sim

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// ids hands out segment ids that nothing else has.
type ids struct{ next uint64 }

const firstOwn = 1 << 48 // above all ids of traces and groups

func (i *ids) take() uint64 {
	i.next++
	return firstOwn + i.next
}

// W7 is agents that call tools, as inference-perf replays conversations: 3,000 tokens shared by all, a system prompt of
// each agent's own (log-normal, mean 160k, 10k to 240k), then turns of 1,500 tokens, answered with 425, with 15 s of
// tools between, until 262,144 tokens are full. Stages of 5, 10, 20 and 40 agents at once.
func W7(seed uint64) Workload {
	rng := rand.New(rand.NewPCG(seed, 0x7a))
	var own ids
	w := Workload{Name: "W7"}
	for _, agents := range []int{5, 10, 20, 40} {
		stage := Stage{Concurrency: agents}
		for range agents * 3 / 2 {
			stage.Sessions = append(stage.Sessions, agent(rng, &own))
		}
		w.Stages = append(w.Stages, stage)
	}
	return w
}

const (
	agentShared = 3000
	agentTurn   = 1500
	agentAnswer = 425
	agentGap    = 15 * time.Second
	agentTurns  = 24 // of the 540 that one goes on for: throughput is steady long before
)

func agent(rng *rand.Rand, own *ids) Session {
	const sigma = 0.8
	system := int(math.Exp(math.Log(160_000) - sigma*sigma/2 + sigma*rng.NormFloat64()))
	p := Prompt{{0, agentShared}, {own.take(), min(max(system, 10_000), 220_000)}}
	var s Session
	for range agentTurns {
		p = append(slices.Clone(p), Segment{own.take(), agentTurn})
		if p.Len()+agentAnswer > maxModelLen {
			break
		}
		s.Turns = append(s.Turns, Turn{Gap: agentGap, Prompt: p, Output: agentAnswer})
		p = append(slices.Clone(p), Segment{own.take(), agentAnswer}) // the answer, as the agent sends it back
	}
	return s
}

// W10 is a synthetic stand-in for Mooncake's tool and agent trace, of which only statistics are at hand: 23,608
// requests an hour, 8,596 tokens in, 182 out, 59 % cacheable, two families with system prompts of 6,144 and 2,560 tokens
// beside chats. The families' shares follow from the means.
func W10(seed uint64) Workload {
	const (
		length = 20 * time.Minute
		rate   = 23_608. / 3600
		first  = .504 // share of requests with the long system prompt
		second = .132
	)
	rng := rand.New(rand.NewPCG(seed, 0x10a))
	chats := workload.Generate(length, seed)
	stage := FromTrace(chats, 1).Stages[0]
	keep := (1 - first - second) * rate / (float64(len(chats.Requests)) / length.Seconds())
	stage.Sessions = thin(rng, stage.Sessions, keep)
	for i := range stage.Sessions {
		stage.Sessions[i].At += time.Duration(rng.Float64() * float64(3*time.Second)) // off the grid
		t := &stage.Sessions[i].Turns[0]
		t.Output = max(1, t.Output*4/3)
	}
	var own ids
	for _, f := range []struct{ share, system, least, most, output int }{
		{504, 6144, 512, 2048, 26}, {132, 2560, 1024, 1024, 20},
	} {
		head := own.take()
		for _, at := range arrivals(rng, phase{rate * float64(f.share) / 1000, length.Seconds()}, true) {
			tail := f.least + rng.IntN(f.most-f.least+1)
			stage.Sessions = append(stage.Sessions, one(at, Prompt{{head, f.system}, {own.take(), tail}}, max(1, f.output/2+rng.IntN(f.output))))
		}
	}
	slices.SortStableFunc(stage.Sessions, func(a, b Session) int { return cmp.Compare(a.At, b.At) })
	return Workload{Name: "W10", Stages: []Stage{stage}}
}

// thin keeps about so large a share of sessions.
func thin(rng *rand.Rand, all []Session, share float64) []Session {
	return slices.DeleteFunc(all, func(Session) bool { return rng.Float64() >= share })
}
