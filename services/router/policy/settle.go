package policy

// settle chooses among the engines whose cost is within nearTie of the best and that hold at least as much: the one
// with the least cold work, then the first in the rendezvous order of the prompt's first key, so that routers with
// equal ledgers agree. A prompt without a key takes the random number for it. Where some of them hold, or are just
// computing, half of the prompt more than the best, only those count: to wait for a prefix under way costs about what
// computing it again elsewhere does, and a burst of equal prompts would otherwise be computed by every idle engine.
func (f *fleet) settle(o *Observation, costs []float64, best int, random uint64) int {
	if f.without&Tie != 0 {
		return best
	}
	key := o.FirstKey
	if key == 0 {
		key = random
	}
	matched, tie := f.enough(o, costs, best)
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
func (f *fleet) enough(o *Observation, costs []float64, best int) (matched int, tie float64) {
	least := held(o, &o.Candidates[best])
	ahead := least + (o.PromptTokens+1)/2
	for i := range o.Candidates {
		if f.without&Follow == 0 && costs[i] <= costs[best]+followTie && held(o, &o.Candidates[i]) >= ahead {
			return ahead, followTie
		}
	}
	return least, nearTie
}
