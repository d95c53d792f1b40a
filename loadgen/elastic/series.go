package elastic

import (
	"slices"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// maxPoints bounds a Series.
const maxPoints = 360

var roles = [2]decide.Role{decide.Prefill, decide.Decode}

// series puts samples together.
func series(samples []Sample) *Series {
	per := max(1, (len(samples)+maxPoints-1)/maxPoints)
	s := &Series{Step: float64(per) * grain.Seconds(), Demand: map[string][]float64{}, Serving: map[string][]int{}, Starting: map[string][]int{}, Draining: map[string][]int{}}
	for chunk := range slices.Chunk(samples, per) {
		s.add(chunk)
	}
	s.decisions(samples)
	return s
}

// add puts some samples into one step.
func (s *Series) add(chunk []Sample) {
	n, good, queued := 0, 0, 0
	for _, x := range chunk {
		n, good, queued = n+x.Requests, good+x.Good, max(queued, x.Queued)
	}
	share := -1.
	if n > 0 {
		share = ratio(good, n)
	}
	s.Rate = append(s.Rate, float64(n)/float64(len(chunk))/grain.Seconds())
	s.Good, s.Queued = append(s.Good, share), append(s.Queued, queued)
	for _, role := range roles {
		var demand float64
		var most [4]int
		for _, x := range chunk {
			demand += x.Demand[role] / float64(len(chunk))
			for i, v := range x.Roles[role] {
				most[i] = max(most[i], v)
			}
		}
		name := string(role)
		s.Demand[name] = append(s.Demand[name], demand)
		s.Serving[name], s.Starting[name], s.Draining[name] = append(s.Serving[name], most[1]), append(s.Starting[name], most[2]), append(s.Draining[name], most[3])
	}
}

// mostDecisions bounds what is annotated.
const mostDecisions = 400

// decisions finds the changes of what is ordered.
func (s *Series) decisions(samples []Sample) {
	for i := 1; i < len(samples); i++ {
		for _, role := range roles {
			from, to := samples[i-1].Roles[role][0], samples[i].Roles[role][0]
			if from != to && len(s.Decisions) < mostDecisions {
				s.Decisions = append(s.Decisions, Decided{At: samples[i].At, Role: string(role), From: from, To: to, Rule: samples[i].Said[role]})
			}
		}
	}
}
