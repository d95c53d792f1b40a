package sim

import (
	"math/rand/v2"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Faults are what goes wrong beside starts that fail.
type Faults struct {
	Hear    func(o *decide.Observation, now time.Duration)             // changes what the scaler hears
	Stuck   func(role decide.Role, now time.Duration) string           // why a replica ordered now never starts; "" is that it does
	Outside func(role decide.Role, ordered int, now time.Duration) int // what somebody else orders instead
}

// hearing is what a scaler can know of the fleet: the routers' reports as of 1 s ago, the engines' own words as of some
// seconds ago, and what runs.
type hearing struct {
	counters decide.Routers // at this moment
	queued   int            // requests in the router
	tokens   int            // of their prompts
	rng      *rand.Rand
	seen     int // that ended since the last observation

	told    decide.Routers // as of the last report
	engines map[int]decide.Engine
	scrapes []scrapes // the newest last
}

// scrapes are all engines' words at one time.
type scrapes struct {
	at time.Duration
	of map[int]decide.Scrape
}

func (h *hearing) begin(x *elastic) {
	h.rng = rand.New(rand.NewPCG(x.Seed, 0x5a3e))
	h.engines = map[int]decide.Engine{}
}

// arrived counts a request that has come.
func (h *hearing) arrived(a *Arrival) {
	h.counters.Arrivals++
	h.queued++
	h.tokens += a.Prompt.Len()
}

// sent counts a request that leaves for an engine.
func (h *hearing) sent(c *call) {
	h.queued--
	h.tokens -= c.prompt
	h.counters.Prompt += float64(c.booked.held.Prompt)
	h.counters.Uncached += float64(c.booked.held.Uncached)
}

// ended counts an answer, and keeps a uniform sample of those since the last observation.
func (h *hearing) ended(c *call, a *Answer) {
	r := &h.counters
	r.Finished++
	r.Output += float64(c.output)
	one := decide.Request{Prompt: c.prompt, Uncached: c.prompt - c.hit, Output: c.output, Waited: c.dispatched - c.sent,
		Prefill: c.prefilled, TTFT: a.TTFT, ITL: a.TPOT, Failed: a.Refused}
	if c.booked.split() {
		one.Uncached = max(1, c.prompt-c.leftHit)
	}
	h.seen++
	if len(r.Ended) < reportSize {
		r.Ended = append(r.Ended, one)
	} else if i := h.rng.IntN(h.seen); i < reportSize {
		r.Ended[i] = one
	}
}

// report is what the routers say: it stays as it is until the next one. The engines are scraped at the same time.
func (h *hearing) report(x *elastic) {
	now := x.f.clock.now
	h.told = h.counters
	h.told.Heard, h.told.Alive, h.told.Reporting = x.f.router.time(now), 1, 1
	h.told.Queued, h.told.Tokens, h.told.Held = h.queued, h.tokens, len(x.held)
	h.counters.Ended, h.seen = nil, 0
	clear(h.engines)
	scraped := scrapes{at: now, of: map[int]decide.Scrape{}}
	loads := x.f.router.pool.Loads()
	for i, p := range x.pods {
		if !p.serving() {
			continue
		}
		e := p.engine
		l := loads[engineID(i)]
		h.engines[i] = decide.Engine{Inflight: l.Active, Backlog: l.Uncached, Decoding: l.Active - l.Waiting,
			Context: l.DecodeContext + l.Streamed, Gaps: e.gaps, Tokens: e.gapped}
		s := e.core.Stats()
		scraped.of[i] = decide.Scrape{At: x.f.router.time(now), Running: float64(s.Running), Waiting: float64(s.Waiting), KVUsage: s.Usage(),
			KVTokens: s.Blocks * x.f.o.BlockSize, Preemptions: float64(s.Preemptions), Generated: float64(s.GeneratedTokens)}
	}
	h.scrapes = append(h.scrapes, scraped)
	if len(h.scrapes) > 8 {
		h.scrapes = h.scrapes[1:]
	}
}

// observe is what a scaler gets.
func (h *hearing) observe(x *elastic) decide.Observation {
	now := x.f.clock.now
	o := decide.Observation{Routers: h.told, Replicas: map[decide.Role]decide.Replicas{}}
	h.told.Ended = nil // heard once
	var words map[int]decide.Scrape
	for _, s := range h.scrapes {
		if now-s.at >= x.Scraped || words == nil {
			words = s.of
		}
	}
	for _, p := range x.pods {
		if !p.serving() || p.leaving { // what terminates is no endpoint any more
			continue
		}
		e := h.engines[p.engine.number]
		e.ID, e.Role = engineID(p.engine.number), p.role.name
		e.Serving, e.Draining = true, p.state == draining
		e.Scrape = words[p.engine.number]
		o.Engines = append(o.Engines, e)
	}
	for name, r := range x.roles {
		o.Replicas[name] = x.replicas(r)
	}
	return o
}

// replicas is what the cluster says of a role.
func (x *elastic) replicas(r *role) decide.Replicas {
	now := x.f.clock.now
	all := decide.Replicas{Read: x.f.router.time(now), Desired: r.ordered, Starts: r.starts}
	r.starts = nil
	for _, p := range x.pods {
		switch {
		case p.role != r || p.leaving || p.state == gone:
		case p.state == starting:
			s := decide.Starting{Created: x.f.router.time(p.created), Stuck: p.stuck}
			if p.crashes && now-p.created > x.Startup {
				s.Stuck = "CrashLoopBackOff"
			}
			all.Starting = append(all.Starting, s)
		default:
			all.Ready++
		}
	}
	return all
}

// disturb lets somebody else scale.
func (x *elastic) disturb(now time.Duration) {
	if x.Faults.Outside == nil {
		return
	}
	for _, name := range [2]decide.Role{decide.Prefill, decide.Decode} {
		r := x.roles[name]
		if to := x.Faults.Outside(name, r.ordered, now); to != r.ordered {
			x.bring(r, to, nil)
		}
	}
}
