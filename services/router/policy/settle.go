package policy

// settle chooses among the engines whose cost is within nearTie of the best and that hold at least as much: the one
// with the least cold work, then the first in the rendezvous order of the prompt's first key, so that routers with
// equal ledgers agree. A prompt without a key takes the random number for it. Where some of them hold, or are just
// computing, half of the prompt more than the best, only those count: to wait for a prefix under way costs about what
// computing it again elsewhere does, and a burst of equal prompts would otherwise be computed by every idle engine.
func settle(o *Observation, costs []float64, best int, random uint64) int {
	key := o.FirstKey
	if key == 0 {
		key = random
	}
	matched, tie := enough(o, costs, best)
	j, rank := -1, uint64(0)
	for i := range o.Candidates {
		c := &o.Candidates[i]
		if costs[i] > costs[best]+tie || held(o, c) < matched {
			continue
		}
		w := weight(key, c.Engine)
		if j < 0 || c.ColdWork < o.Candidates[j].ColdWork || c.ColdWork == o.Candidates[j].ColdWork && w > rank {
			j, rank = i, w
		}
	}
	return j
}

// enough is how much a tie of best must hold, and how near it must be.
func enough(o *Observation, costs []float64, best int) (matched int, tie float64) {
	least := held(o, &o.Candidates[best])
	ahead := least + (o.PromptTokens+1)/2
	for i := range o.Candidates {
		if costs[i] <= costs[best]+followTie && held(o, &o.Candidates[i]) >= ahead {
			return ahead, followTie
		}
	}
	return least, nearTie
}

// reason says in words why j was chosen; best is the engine of least cost.
func reason(o *Observation, costs []float64, best, j int) string {
	if len(o.Candidates) == 1 {
		return "the only engine"
	}
	warmest := 0
	for i := range o.Candidates {
		if held(o, &o.Candidates[i]) > held(o, &o.Candidates[warmest]) {
			warmest = i
		}
	}
	most := held(o, &o.Candidates[warmest])
	tied := j != best || tieBeside(o, costs, best)
	switch {
	case most == 0 && tied:
		return "nothing cached; among equals the least cold work, then the prompt's own engine"
	case most == 0:
		return "nothing cached; costs the fleet least"
	case held(o, &o.Candidates[j]) == most && tied:
		return "holds the longest prefix; among equals the least cold work, then the prompt's own engine"
	case held(o, &o.Candidates[j]) == most:
		return "holds the longest prefix and costs the fleet least"
	}
	return "costs the fleet less than the engine with the longest prefix"
}

func tieBeside(o *Observation, costs []float64, best int) bool {
	for i := range costs {
		if i != best && costs[i] <= costs[best]+nearTie && held(o, &o.Candidates[i]) >= held(o, &o.Candidates[best]) {
			return true
		}
	}
	return false
}
