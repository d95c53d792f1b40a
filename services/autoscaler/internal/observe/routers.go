package observe

import (
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const (
	staleAfter = 3 * time.Second // a router reports each second
	maxRouters = 1024            // of a pool
	leap       = 1e12            // more than any router counts between two reports
	turn       = 1e14            // at which totals begin anew, long before a float64 cannot count on
)

// routers sums what the routers say of one pool. The totals only grow, through restarts and deaths of routers. The zero
// value is ready to use.
type routers struct {
	known map[string]life      // by name
	met   map[string]time.Time // of those alive that have never reported: when they were first seen
	sum   totals
	paces map[string]pace // by engine id
}

// life is what was last heard of a router.
type life struct {
	Report
	heard time.Time
}

type totals struct{ arrivals, prompt, uncached, output, finished float64 }

// pace is the sum of gaps between the tokens of an engine's streams, and their number.
type pace struct{ seconds, gaps float64 }

// fold adds what a report counts beyond the one before it. The first report of a router only sets where to count from:
// it may have run for days. A restarted one counts from zero. Engines for which known says no are passed over. False:
// too many routers.
func (s *routers) fold(r Report, known func(engine string) bool, now time.Time) bool {
	if s.known == nil {
		s.known, s.paces = make(map[string]life), make(map[string]pace)
	}
	before, ok := s.known[r.Router]
	switch {
	case !ok && len(s.known) >= maxRouters:
		return false
	case ok && r.Started < before.Started, ok && r.Started == before.Started && r.Seq != 0 && r.Seq == before.Seq:
		return true // a late word of an earlier life, or one that was heard
	case ok && (r.Started > before.Started || r.Seq < before.Seq):
		before = life{}
	case !ok, r.fell(&before.Report):
		before.Report = r
	}
	if r.leapt(&before.Report) {
		before.Report = r
	}
	s.sum.arrivals += float64(r.Arrivals - before.Arrivals)
	s.sum.prompt += float64(r.Prompt - before.Prompt)
	s.sum.uncached += float64(r.Uncached - before.Uncached)
	s.sum.output += float64(r.Output - before.Output)
	s.sum.finished += float64(r.Finished - before.Finished)
	for id, l := range r.Engines {
		if !known(id) {
			delete(r.Engines, id)
			continue
		}
		if b := before.Engines[id]; l.Gaps >= b.Gaps && l.Gaps-b.Gaps < leap && l.Seconds >= b.Seconds {
			p := s.paces[id]
			s.paces[id] = pace{p.seconds + l.Seconds - b.Seconds, p.gaps + float64(l.Gaps-b.Gaps)}
		}
	}
	if max(s.sum.arrivals, s.sum.prompt, s.sum.uncached, s.sum.output, s.sum.finished) > turn {
		s.sum = totals{}
	}
	s.known[r.Router] = life{r, now}
	delete(s.met, r.Router)
	return true
}

// fell says that a counter is less than before, which is not explained by a restart.
func (r *Report) fell(before *Report) bool {
	return r.Arrivals < before.Arrivals || r.Prompt < before.Prompt || r.Uncached < before.Uncached || r.Output < before.Output ||
		r.Finished < before.Finished
}

// leapt says that a counter grew as none can. It counts for nothing, or totals would be out of all reason for good.
func (r *Report) leapt(before *Report) bool {
	return max(r.Arrivals-before.Arrivals, r.Prompt-before.Prompt, r.Uncached-before.Uncached, r.Output-before.Output,
		r.Finished-before.Finished) > leap
}

// see notes which routers are alive. Those that are neither alive nor heard are forgotten: what they counted stays
// counted. A router that is silent but alive is kept with its last word.
func (s *routers) see(alive []string, now time.Time) {
	live := make(map[string]bool, len(alive))
	for _, name := range alive {
		live[name] = true
		if _, heard := s.known[name]; !heard && s.met[name].IsZero() {
			if s.met == nil {
				s.met = make(map[string]time.Time)
			}
			s.met[name] = now
		}
	}
	for name, l := range s.known {
		if !live[name] && now.Sub(l.heard) > staleAfter {
			delete(s.known, name)
		}
	}
	for name := range s.met {
		if !live[name] {
			delete(s.met, name)
		}
	}
}

// observe is the sum, as of the routers that see was last told of.
func (s *routers) observe(alive []string, now time.Time) decide.Routers {
	o := decide.Routers{
		Alive: len(alive), Arrivals: s.sum.arrivals, Prompt: s.sum.prompt, Uncached: s.sum.uncached, Output: s.sum.output, Finished: s.sum.finished,
	}
	var newest time.Time
	for _, l := range s.known {
		o.Queued, o.Tokens, o.Held = o.Queued+int(l.Queued), o.Tokens+int(l.Compute), o.Held+int(l.Held)
		if l.heard.After(newest) {
			newest = l.heard
		}
	}
	o.Heard = newest
	for _, name := range alive {
		l, heard := s.known[name]
		if !heard {
			l.heard = s.met[name]
		} else if now.Sub(l.heard) <= staleAfter {
			o.Reporting++
		}
		if !newest.IsZero() && l.heard.Before(o.Heard) {
			o.Heard = l.heard
		}
	}
	return o
}

// engine adds to e what the routers have under way on one rank of it. For each router that is alive and has not said
// that it knows of a drain, a draining engine has one request more: that router may still choose it.
func (s *routers) engine(e *decide.Engine, id string, alive []string) {
	for _, l := range s.known {
		on := l.Engines[id]
		e.Inflight += int(on.Inflight)
		e.Backlog += int(on.Uncached)
		e.Decoding += int(on.Decoding)
		e.Context += int(on.Context)
	}
	e.Gaps += s.paces[id].seconds
	e.Tokens += s.paces[id].gaps
	if !e.Draining {
		return
	}
	for _, name := range alive {
		if !s.known[name].Engines[id].Draining {
			e.Inflight++
		}
	}
}

// forget drops what is remembered of engines that are no more.
func (s *routers) forget(known func(engine string) bool) {
	for id := range s.paces {
		if !known(id) {
			delete(s.paces, id)
		}
	}
}
