// Package decide says how many engines of each role a pool needs, and why.
//
// It is pure: state and observation in, state and decision out; the time is an argument. It knows no router, no engine
// and no Kubernetes, acts on nothing, and never takes what is missing for zero: what it cannot see it holds.
package decide

import "time"

// Role is what an engine is used for.
type Role string

// The roles. A pool has engines for Both, or some for Prefill and some for Decode.
const (
	Prefill Role = "prefill"
	Decode  Role = "decode"
	Both    Role = "both"
)

// State is what Decide remembers of one pool. It is a plain value that survives encoding as JSON, in less than 64 KiB;
// the zero State with any Policy is the beginning. Memory is not for others.
type State struct {
	Policy Policy `json:"policy"`
	Memory memory `json:"memory"`
}

// memory is what was learned and seen.
type memory struct {
	At    time.Time `json:"at"`    // of the last decision
	Begun time.Time `json:"begun"` // of the first
	GapAt time.Time `json:"gapAt"` // when demand was last not to be relied upon
	Seen  float64   `json:"seen"`  // seconds in which demand was seen

	Counts   counts   `json:"counts"`
	Arrivals level    `json:"arrivals"` // requests/s
	Work     level    `json:"work"`     // busy prefill replicas
	Works    latest   `json:"works"`
	Occupied level    `json:"occupied"` // decode replicas
	Burst    burst    `json:"burst"`
	Lengths  lengths  `json:"lengths"`
	Sizes    sizes    `json:"sizes"`
	Prefills prefills `json:"prefills"`
	Steps    steps    `json:"steps"`
	Engines  []known  `json:"engines"`
	Ratio    float64  `json:"ratio"` // of what decode occupies to what arrivals foretell
	Full     float64  `json:"full"`  // share of a cache that may be full

	Trust  trust     `json:"trust"`
	IdleAt time.Time `json:"idleAt"` // since when there is positively nothing to do; zero is not
	Tracks [3]track  `json:"tracks"` // by role
}

// Decide folds an observation in and says what is wanted. It changes neither s nor o. Cost: some 20 us and as many
// allocations, with 80 engines.
func (s State) Decide(o Observation, now time.Time) (State, Decision) {
	now = now.Round(0).UTC() // as it would be decoded
	p := s.Policy.complete()
	v := look(&o, now)
	d := Decision{At: now, Mode: p.Mode, Ages: v.ages, Roles: make(map[Role]RoleDecision, len(o.Replicas))}
	m := &s.Memory
	c := core{s: m, o: &o, p: &p, v: &v, d: &d, now: now}
	first := m.Begun.IsZero()
	switch {
	case p.Mode == Off:
		c.hold("off", "")
		return s, d
	case first:
		m.Begun = now
	case !now.After(m.At):
		m.rebase(now)
		c.hold("clock", "the clock did not move on")
		return s, d
	}
	m.At = now
	c.l = m.measure(&o, &v, &p, now)
	if !first && (!v.most || !c.l.taken) {
		m.GapAt = now
	}
	if v.routers {
		m.Trust.judge(&o, &c.l, &p, now)
	}
	m.idle(&o, &v, &c.l, now)
	c.decide()
	return s, d
}

// rebase keeps what is remembered from lying in the future, when the clock went back.
func (s *memory) rebase(now time.Time) {
	times := []*time.Time{&s.At, &s.Begun, &s.GapAt, &s.Counts.At, &s.Counts.Heard, &s.IdleAt, &s.Trust.SuspectAt, &s.Trust.ResizeAt}
	for i := range s.Tracks {
		t := &s.Tracks[i]
		times = append(times, &t.OrderedAt, &t.UpAt, &t.BelowAt, &t.AdoptedAt)
	}
	for _, t := range times {
		if t.After(now) {
			*t = now
		}
	}
}

// core is one call of Decide.
type core struct {
	s   *memory
	o   *Observation
	p   *Policy
	v   *view
	d   *Decision
	now time.Time
	l   load
}

// hold keeps everything as it is.
func (c *core) hold(rule, why string) {
	for i, role := range roles() {
		if r, ok := c.o.Replicas[role]; ok {
			t := &c.s.Tracks[i]
			run := t.read(&r, c.o.Engines, role, t.Startups.seconds(c.p.Startup), c.now)
			x := RoleDecision{Now: run.now, Need: run.now, Target: run.now, Rule: rule}
			if why != "" {
				x.Blocked = []string{why}
			}
			c.d.Roles[role] = x
		}
	}
}

// choice is what one role comes to.
type choice struct {
	role   Role
	i      int // of the role
	track  *track
	run    running
	bounds Bounds
	out    RoleDecision
	unheld int // needed by what is foreseen now
	least  int // that it keeps when the budget is shared out
}

// decide chooses for each role, shares the budget out, and remembers what will be ordered.
func (c *core) decide() {
	var all [3]choice
	n := 0
	for i, role := range roles() {
		if r, ok := c.o.Replicas[role]; ok {
			all[n] = c.choose(i, role, &r)
			n++
		}
	}
	chosen := all[:n]
	c.share(chosen)
	for i := range chosen {
		x := &chosen[i]
		if x.out.Target > x.out.Now {
			x.track.UpAt = c.now
		}
		c.explain(x)
		c.d.Roles[x.role] = x.out
	}
	if !c.v.routers {
		c.d.Blind = c.v.down + ": the replicas are held"
	} else if c.v.down != "" {
		c.d.Blind = c.v.down + ": none is taken away"
	}
	for _, step := range Steps(*c.p, *c.o, *c.d) {
		if step.Do == Scale {
			c.s.Tracks[index(step.Role)].ordered(&step, c.now)
		}
	}
}

func index(role Role) int {
	switch role {
	case Prefill:
		return 0
	case Decode:
		return 1
	default:
		return 2
	}
}

// choose decides for one role as if there were no other.
func (c *core) choose(i int, role Role, r *Replicas) choice {
	t := &c.s.Tracks[i]
	for _, d := range r.Starts[:min(len(r.Starts), len(t.Startups.Ring))] {
		t.Startups.put(d)
	}
	startup := t.Startups.seconds(c.p.Startup)
	x := choice{role: role, i: i, track: t, bounds: c.p.bounds(role)}
	x.run = t.read(r, c.o.Engines, role, startup, c.now)
	x.out.Now, x.out.Model = x.run.now, Learned{Model: c.l.model, Startup: startup, Confidence: c.l.doubts[i], Sequences: c.l.fit}
	x.out.Leaving = t.Leaving
	if !r.fresh(c.now) {
		x.keep("blind", "everything: what runs was not read lately")
		return x
	}
	if r.Conflict != "" {
		x.block("everything: " + r.Conflict + " scales the same object")
	}
	switch {
	case c.asleep(&x):
		x.out.Need, x.out.Rule = 0, "idle"
	case c.v.routers && c.l.known:
		c.need(&x, startup)
	case !c.v.routers:
		c.blind(&x, startup)
		return x
	default:
		x.keep("unknown", "demand is not known yet")
		return x
	}
	c.settle(&x, startup)
	return x
}

func (x *choice) block(why string) { x.out.Blocked = append(x.out.Blocked, why) }

func (x *choice) keep(rule, why string) {
	x.out.Need, x.out.Target, x.least, x.out.Rule = x.run.now, x.run.now, x.run.now, rule
	x.block(why)
}

// settle brings a role from what runs to what is needed: up at once, down with care.
func (c *core) settle(x *choice, startup float64) {
	out := &x.out
	n := out.Need
	if b := x.bounds; n > b.Max {
		n, out.Rule = b.Max, "maximum"
		x.block("more: the maximum is " + count(b.Max))
	} else if n < b.Min {
		n, out.Rule = b.Min, "minimum"
	}
	if x.run.stuck > 0 {
		x.block(count(x.run.stuck) + " do not become ready: look at their events")
		if n > 0 {
			n = min(n+x.run.instead(n), x.bounds.Max)
		}
	}
	out.Target = n
	switch {
	case x.run.adopted && n != out.Now:
		out.Target, x.track.BelowAt = out.Now, time.Time{}
		x.block(count(n) + ": others ordered " + count(out.Now) + " just now")
	case n < out.Now:
		var why string
		if out.Target, why = x.track.down(n, &x.run, c.caution(x, startup), c.now); why != "" {
			x.block("down to " + count(n) + ": " + why)
		}
	default:
		x.track.BelowAt = time.Time{}
	}
	// An order of the operator's is no question of demand, but nothing is taken away blind.
	if out.Target > x.bounds.Max && c.v.down == "" && x.run.coming == 0 && c.p.Mode != UpOnly {
		out.Target = x.bounds.Max
	}
	x.least = min(out.Target, out.Now)
	if k := c.caution(x, startup); c.p.GPUs > 0 && k.why == "" && x.track.settled(&x.run, k, c.now) {
		x.least = min(x.least, max(x.unheld, 1)) // what is only held may go to a role that needs it
	}
}

// caution says what speaks against fewer replicas of a role, beside what runs of it.
func (c *core) caution(x *choice, startup float64) *caution {
	k := &caution{startup: startup}
	held := holdSeconds(startup)
	switch {
	case c.v.down != "":
		k.why = c.v.down
	case c.p.Mode == UpOnly:
		k.why = "the mode is up-only"
	case x.out.Rule == "idle": // a positive sign that nobody is served
		k.idle = true
	case c.now.Sub(c.s.Begun) < settleFirst:
		k.why = "demand is known for a short while only"
	case !c.s.GapAt.IsZero() && c.now.Sub(c.s.GapAt).Seconds() < held/2:
		k.why = "a source was missing lately"
	case c.s.Trust.suspect(c.now):
		k.why = "routers and engines disagree about what runs"
	case c.s.Trust.misses(x.role) > missesMost:
		k.why = "requests miss the objective now"
	}
	return k
}
