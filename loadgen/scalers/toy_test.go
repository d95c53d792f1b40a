package scalers

import (
	"fmt"
	"math"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// toy is a fleet in closed form: requests are a fluid of equal ones, engines of a role share it evenly, and replicas
// are ready a start-up time after their order.
type toy struct {
	model          decide.Model
	startup        time.Duration
	prompt, output float64

	pods    map[decide.Role][]pod
	made    int
	backlog float64 // prompt tokens to be computed
	active  float64 // sequences that decode, or wait for it
	o       decide.Observation
	counted map[string]gaps
}

type pod struct {
	id    string
	ready time.Time
}

func newToy(prompt, output float64, replicas int) *toy {
	t := &toy{
		model: filledModel(decide.Model{}), startup: 110 * time.Second, prompt: prompt, output: output,
		pods: make(map[decide.Role][]pod), counted: make(map[string]gaps),
	}
	t.o.Replicas = make(map[decide.Role]decide.Replicas)
	for _, role := range []decide.Role{decide.Prefill, decide.Decode} {
		t.order(role, replicas, begin, 0)
	}
	return t
}

// order makes the replicas of a role as many as wanted; the youngest go first.
func (t *toy) order(role decide.Role, n int, now time.Time, startup time.Duration) {
	for len(t.pods[role]) < n {
		t.made++
		t.pods[role] = append(t.pods[role], pod{fmt.Sprintf("%s-%d", role, t.made), now.Add(startup)})
	}
	t.pods[role] = t.pods[role][:n]
}

func (t *toy) ready(role decide.Role, now time.Time) (ready []pod) {
	for _, p := range t.pods[role] {
		if !p.ready.After(now) {
			ready = append(ready, p)
		}
	}
	return ready
}

// step is 5 s of the fleet.
func (t *toy) step(now time.Time, perSecond float64) decide.Observation {
	const dt = 5.
	ps, ds := t.ready(decide.Prefill, now), t.ready(decide.Decode, now)
	np, nd := float64(len(ps)), float64(len(ds))
	t.backlog += perSecond * dt * t.prompt
	capacity := np * dt * t.prompt / seconds(t.model, t.prompt)
	computed := min(t.backlog, capacity)
	t.backlog -= computed
	wait := t.backlog / max(1, capacity/dt)
	t.active += computed / t.prompt
	context := t.prompt + t.output/2
	fits := min(float64(t.model.MaxSeqs), float64(t.model.KVTokens)/context)
	running := min(t.active/max(1, nd), fits)
	itl := gap(t.model, running, running*context)
	ended := min(t.active, running*nd*dt/(t.output*itl))
	t.active -= ended

	t.o.Routers.Heard, t.o.Routers.Alive, t.o.Routers.Reporting = now, 1, 1
	t.o.Routers.Arrivals += perSecond * dt
	t.o.Routers.Prompt += perSecond * dt * t.prompt
	t.o.Routers.Uncached += perSecond * dt * t.prompt
	t.o.Routers.Output += ended * t.output
	t.o.Routers.Finished += ended
	t.o.Routers.Ended = nil
	one := time.Duration(seconds(t.model, t.prompt) * 1e9)
	for range min(512, int(ended)) {
		t.o.Routers.Ended = append(t.o.Routers.Ended, decide.Request{
			Prompt: int(t.prompt), Uncached: int(t.prompt), Output: int(t.output),
			Prefill: one, TTFT: one + time.Duration(wait*1e9), ITL: time.Duration(itl * 1e9),
		})
	}
	t.o.Engines = nil
	for _, p := range ps {
		waiting := t.backlog / t.prompt / np
		t.o.Engines = append(t.o.Engines, decide.Engine{
			ID: p.id, Role: decide.Prefill, Serving: true, Inflight: int(math.Ceil(waiting)), Backlog: int(t.backlog / np),
			Scrape: decide.Scrape{
				At: now, Running: min(waiting, 4), Waiting: max(0, waiting-4), KVTokens: t.model.KVTokens,
				KVUsage: min(waiting, 4) * t.prompt / float64(t.model.KVTokens),
			},
		})
	}
	for _, p := range ds {
		g := t.counted[p.id]
		tokens := running * dt / itl
		g.seconds, g.tokens = g.seconds+tokens*itl, g.tokens+tokens
		t.counted[p.id] = g
		t.o.Engines = append(t.o.Engines, decide.Engine{
			ID: p.id, Role: decide.Decode, Serving: true, Inflight: int(t.active / nd), Decoding: int(running),
			Context: int(running * context), Gaps: g.seconds, Tokens: g.tokens,
			Scrape: decide.Scrape{
				At: now, Running: running, Waiting: max(0, t.active/nd-running), KVTokens: t.model.KVTokens,
				KVUsage: running * context / float64(t.model.KVTokens),
			},
		})
	}
	for role, pods := range t.pods {
		t.o.Replicas[role] = decide.Replicas{Read: now, Desired: len(pods), Ready: len(t.ready(role, now))}
	}
	return t.o
}

// run lets a scaler have the fleet for a while, and returns what was ordered at each step.
func (t *toy) run(s Scaler, from, to int, rate func(second int) float64) (ordered []map[decide.Role]int) {
	for second := from; second < to; second += 5 {
		wanted := s.Decide(t.step(at(second), rate(second)), at(second))
		for role, n := range wanted {
			t.order(role, n, at(second), t.startup)
		}
		ordered = append(ordered, wanted)
	}
	return ordered
}
