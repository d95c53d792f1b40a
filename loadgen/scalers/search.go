package scalers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// ErrUnreached is a search that found no plan that is good enough.
var ErrUnreached = errors.New("no plan reaches the attainment asked for")

// searchCalls bounds the runs of the simulator of one search: an hour of two roles takes 150 to 350.
const searchCalls = 400

// BestFound looks for the cheapest plan whose attainment is at least at, in the simulator that attain is. It begins with
// start, the fluid bound, adds spare replicas in proportion to the root of each minute's until the plan is good enough,
// and then takes single replicas away while the plan stays so: first throughout, then from windows of 10 minutes, then
// from single minutes, latest first, in both roles, until no such change saves GPU-seconds any more or 400 runs were made.
// So it is best found, not proven least. An error of attain ends it; ErrUnreached comes with the best of the plans tried.
func BestFound(
	ctx context.Context, start Plan, attain func(Plan) (attainment, gpuSeconds float64, err error), at float64,
) (Plan, error) {
	s := search{ctx: ctx, attain: attain, at: at}
	if err := s.rise(start); err != nil {
		return s.result(), err
	}
	for _, width := range []int{math.MaxInt, 10, 1} {
		if err := s.descend(width); err != nil {
			return s.result(), err
		}
	}
	return s.result(), nil
}

// search is one in progress.
type search struct {
	ctx    context.Context
	attain func(Plan) (float64, float64, error)
	at     float64
	best   Plan
	share  float64 // attainment of best
	cost   float64 // of best
	calls  int
}

func (s *search) result() Plan {
	p := s.best.clone()
	p.Calls = s.calls
	return p
}

// try runs a plan.
func (s *search) try(p Plan) (share, cost float64, err error) {
	if err := s.ctx.Err(); err != nil {
		return 0, 0, fmt.Errorf("search plan: %w", err)
	}
	s.calls++
	if share, cost, err = s.attain(p); err != nil {
		return 0, 0, fmt.Errorf("search plan: %w", err)
	}
	return share, cost, nil
}

// rise looks for a plan that is good enough, in at most 16 runs.
func (s *search) rise(start Plan) error {
	s.best = start.clone()
	for spare := 0.; spare <= 7.5; spare += .5 {
		p := start.clone()
		for _, ready := range p.Ready {
			for i, n := range ready {
				ready[i] = n + int(math.Ceil(spare*math.Sqrt(float64(n))))
			}
		}
		share, cost, err := s.try(p)
		if err != nil {
			return err
		}
		if share > s.share || spare == 0 {
			s.best, s.share, s.cost = p, share, cost
		}
		if share >= s.at {
			return nil
		}
	}
	return fmt.Errorf("search plan: %w: %.4f of %.4f", ErrUnreached, s.share, s.at)
}

// descend takes replicas away from windows of so many minutes until none can go.
func (s *search) descend(width int) error {
	roles := make([]decide.Role, 0, len(s.best.Ready))
	for role := range s.best.Ready {
		roles = append(roles, role)
	}
	slices.Sort(roles)
	for saved := true; saved; {
		saved = false
		for _, role := range roles {
			n := len(s.best.Ready[role])
			size := min(n, width)
			for to := n; to > 0; to -= size {
				for {
					went, err := s.less(role, max(0, to-size), to)
					if err != nil {
						return err
					}
					if !went {
						break
					}
					saved = true
				}
			}
		}
		saved = saved && s.calls < searchCalls
	}
	return nil
}

// less tries one replica less of a role in a window of minutes, and keeps it if that is good enough and cheaper.
func (s *search) less(role decide.Role, from, to int) (bool, error) {
	p := s.best.clone()
	changed := false
	for i := from; i < to; i++ {
		if p.Ready[role][i] > 1 {
			p.Ready[role][i]--
			changed = true
		}
	}
	if !changed || s.calls >= searchCalls {
		return false, nil
	}
	share, cost, err := s.try(p)
	if err != nil || share < s.at || cost >= s.cost {
		return false, err
	}
	s.best, s.share, s.cost = p, share, cost
	return true, nil
}
