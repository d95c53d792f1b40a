package autoscaler

import (
	"encoding/json"
	"fmt"
	"time"
)

const (
	staleAfter = 3 * time.Second // a router reports each second
	maxRouters = 1024            // of a pool
)

// report is what is read of what a router says each second of one pool: counters since it started, and a gauge.
type report struct {
	Router   string `json:"router"`
	Started  int64  `json:"started"` // Unix seconds; another value is another life, with counters from zero
	Pool     string `json:"pool"`
	Uncached uint64 `json:"uncached_tokens"`
	Output   uint64 `json:"output_tokens"`
	Queued   uint64 `json:"queued"`
}

func parse(data []byte) (report, error) {
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read a router's report: %w", err)
	}
	if r.Router == "" || r.Pool == "" {
		return r, fmt.Errorf("read a router's report: router %q, pool %q", r.Router, r.Pool)
	}
	return r, nil
}

// routers sums what the routers say of one pool. The totals only grow, through restarts and deaths of routers. The zero
// value is ready to use; it belongs to one goroutine.
type routers struct {
	known            map[string]life
	uncached, output float64
}

type life struct {
	report
	heard time.Time
}

// fold adds what a report counts beyond the one before it. The first report of a router only sets where to count from:
// it may have run for days. A restarted one counts from zero. False: too many routers.
func (s *routers) fold(r report, now time.Time) bool {
	if s.known == nil {
		s.known = make(map[string]life)
	}
	before, ok := s.known[r.Router]
	if !ok && len(s.known) >= maxRouters {
		return false
	}
	switch {
	case ok && r.Started < before.Started: // a late word of an earlier life
		return true
	case ok && r.Started > before.Started:
		before = life{}
	case !ok, r.Uncached < before.Uncached, r.Output < before.Output:
		before.report = r
	}
	s.uncached += float64(r.Uncached - before.Uncached)
	s.output += float64(r.Output - before.Output)
	s.known[r.Router] = life{r, now}
	return true
}

// queued returns the requests that wait at the routers now.
func (s *routers) queued() float64 {
	n := 0.0
	for _, l := range s.known {
		n += float64(l.Queued)
	}
	return n
}

// blind says why the totals cannot be relied upon, given the routers that are alive; empty if they can. Routers that
// are neither alive nor heard are forgotten: what they counted stays counted.
func (s *routers) blind(alive []string, now time.Time) string {
	live := make(map[string]bool, len(alive))
	silent := 0
	for _, name := range alive {
		live[name] = true
		if l, ok := s.known[name]; !ok || now.Sub(l.heard) > staleAfter {
			silent++
		}
	}
	for name, l := range s.known {
		if !live[name] && now.Sub(l.heard) > staleAfter {
			delete(s.known, name)
		}
	}
	switch {
	case len(alive) == 0:
		return "no router is known"
	case silent > 0:
		return fmt.Sprintf("%d of %d routers have not reported", silent, len(alive))
	}
	return ""
}
