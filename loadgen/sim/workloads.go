package sim

import (
	"math/rand/v2"
	"time"
)

// groups describes prompts that share a head by group, as the load generator inference-perf makes them: groups times
// per prompts in all, shuffled once, sent one after another and again from the start.
type groups struct {
	groups, per              int
	system, question, output int
}

// phase is a rate kept for a while.
type phase struct {
	rate    float64 // requests a second
	seconds float64
}

// prompts returns the distinct prompts in the order in which they are sent.
func (g groups) prompts(rng *rand.Rand) []Prompt {
	all := make([]Prompt, 0, g.groups*g.per)
	for group := range g.groups {
		for i := range g.per {
			head := uint64(1 + group)
			all = append(all, Prompt{{head, g.system}, {1<<32 + head<<16 + uint64(i), g.question}})
		}
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// staged sends the prompts of groups at rates; the first phase warms up. Poisson arrivals, or even ones.
type staged struct {
	name string
	groups
	poisson  bool
	inFlight int
	phases   []phase
}

func (g staged) workload(seed uint64) Workload {
	rng := rand.New(rand.NewPCG(seed, 0x77))
	prompts := g.prompts(rng)
	w := Workload{Name: g.name, InFlight: g.inFlight}
	next := 0
	for i, p := range g.phases {
		stage := Stage{WarmUp: i == 0}
		for _, at := range arrivals(rng, p, g.poisson) {
			stage.Sessions = append(stage.Sessions, one(at, prompts[next%len(prompts)], g.output))
			next++
		}
		w.Stages = append(w.Stages, stage)
	}
	return w
}

// arrivals draws the times of a phase.
func arrivals(rng *rand.Rand, p phase, poisson bool) (at []time.Duration) {
	step := 1 / p.rate
	for t := 0.; ; {
		if poisson {
			t += rng.ExpFloat64() * step
		} else {
			t += step
		}
		if t > p.seconds {
			return at
		}
		at = append(at, time.Duration(t*float64(time.Second)))
	}
}

// W1 is llm-d's precise-prefix benchmark of 8 pods of Qwen3-32B: 150 groups, prompts of 7,200 tokens of which 6,000
// are shared by a group, rates from 3 to 60 a second. Together the groups nearly fill the fleet's cache once.
func W1(seed uint64) Workload { return w1().workload(seed) }

func w1() staged {
	return staged{"W1", groups{150, 5, 6000, 1200, 1000}, true, 800, []phase{{15, 50}, {3, 20}, {10, 20}, {15, 20},
		{20, 38}, {22, 34}, {25, 30}, {30, 25}, {35, 21}, {40, 38}, {43, 36}, {46, 33}, {49, 30}, {52, 29}, {55, 27}, {57, 26}, {60, 25}}}
}

// W2 is llm-d's benchmark of 4 pods of Llama-3.1-70B: 83 groups, 8,000 of 9,000 tokens shared, even arrivals.
func W2(seed uint64) Workload { return w2().workload(seed) }

func w2() staged {
	return staged{"W2", groups{83, 3, 8000, 1000, 1000}, false, 0, []phase{{9, 30}, {3, 210}, {4, 180}, {5, 120},
		{6, 120}, {8, 90}, {10, 70}, {12, 60}, {15, 50}, {20, 50}}}
}

// W3 is W1 with prompts of 2,500 tokens and answers of 500, up to 30 a second.
func W3(seed uint64) Workload { return w3().workload(seed) }

func w3() staged {
	return staged{"W3", groups{150, 5, 2000, 500, 500}, true, 800, []phase{{15, 50}, {3, 20}, {10, 20}, {15, 20}, {20, 38},
		{22, 34}, {25, 30}, {30, 40}}}
}

// W5 is llm-d's tiered-cache guide: 250 groups of 16,000 shared tokens, more than the fleet's cache holds.
func W5(seed uint64) Workload { return w5().workload(seed) }

func w5() staged {
	phases := []phase{{5, 60}}
	for rate := 5.; rate <= 40; rate += 5 {
		phases = append(phases, phase{rate, 60})
	}
	return staged{"W5", groups{250, 5, 16_000, 256, 256}, true, 800, phases}
}

// W6 is llm-d's guide to prefill and decode engines: random prompts of 5,000 tokens, answers of 250, evenly 45 a second
// for two minutes. Prefill alone keeps 13 engines of Qwen3-32B on two H100 busy.
func W6(seed uint64) Workload { return fresh("W6", seed, 45, 5000, 250) }

// W6Slow is its other load: prompts and answers of 1,024 tokens, one a second.
func W6Slow(seed uint64) Workload { return fresh("W6-1024", seed, 1, 1024, 1024) }

// fresh sends prompts that share nothing, evenly for two minutes.
func fresh(name string, seed uint64, rate float64, prompt, output int) Workload {
	rng := rand.New(rand.NewPCG(seed, 0x6d))
	var stage Stage
	for _, at := range arrivals(rng, phase{rate, 120}, false) {
		stage.Sessions = append(stage.Sessions, one(at, Prompt{{rng.Uint64() | firstOwn, prompt}}, output))
	}
	return Workload{Name: name, Stages: []Stage{stage}}
}
