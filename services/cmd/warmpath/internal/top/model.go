// Package top is the live picture of a fleet: what its processes say, folded into what people and programs read.
//
// Model folds and Frame draws; both are pure. Follow reads NATS, Screen is the terminal. It writes nothing anywhere.
package top

import (
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const (
	history    = 15 * time.Minute // that decisions are kept for
	maxRecords = 2000             // of a pool
	maxPools   = 256              // of which decisions or reports are kept
)

// Model is all that was heard. The zero Model with a URL has heard nothing. It belongs to one goroutine.
type Model struct {
	URL string // of NATS, for the picture

	view  *fleet.View
	pools map[string]*pool

	up    bool
	why   string        // it is not
	begun time.Time     // first tick
	seen  time.Time     // last tick at which NATS was up
	now   time.Time     // last tick
	clock time.Duration // stands still while NATS is away
}

type pool struct {
	routers map[string]*router
	records []autoscaler.Record // oldest first
}

// View takes the fleet's present view.
func (m *Model) View(v *fleet.View) { m.view = v }

// Report folds in what a router said. What cannot be read, or is too much, is dropped.
func (m *Model) Report(data []byte, now time.Time) {
	n, err := parse(data)
	if err != nil {
		return
	}
	p := m.pool(n.Pool)
	if p == nil {
		return
	}
	r := p.routers[n.Router]
	if r == nil {
		if len(p.routers) >= maxRouters {
			return
		}
		r = &router{}
		p.routers[n.Router] = r
	}
	r.fold(n, now, m.clock)
}

// Decide takes a logged decision, in the order of the log.
func (m *Model) Decide(r autoscaler.Record) {
	p := m.pool(r.Pool)
	if p == nil {
		return
	}
	if n := len(p.records); n > 0 && r.At.Before(p.records[n-1].At) {
		return // read again
	}
	p.records = append(p.records, r)
	old := r.At.Add(-history)
	// One from before that time is kept: it was in force at its beginning.
	for len(p.records) > 1 && (p.records[1].At.Before(old) || len(p.records) > maxRecords) {
		p.records = p.records[1:]
	}
}

func (m *Model) pool(id string) *pool {
	p := m.pools[id]
	if p == nil && len(m.pools) < maxPools {
		if m.pools == nil {
			m.pools = make(map[string]*pool)
		}
		p = &pool{routers: make(map[string]*router)}
		m.pools[id] = p
	}
	return p
}

// Tick moves the time, at least each second. why says why NATS is not up; empty is up.
func (m *Model) Tick(now time.Time, why string) {
	if m.begun.IsZero() {
		m.begun = now
	}
	up := why == ""
	if up && m.up {
		m.clock += now.Sub(m.now)
	}
	if up {
		m.seen = now
	}
	m.now, m.up, m.why = now, up, why
	for _, p := range m.pools {
		for name, r := range p.routers {
			if m.clock-r.heard > staleAfter && !m.alive(name) {
				delete(p.routers, name)
			}
		}
	}
}

func (m *Model) alive(router string) bool {
	return m.view != nil && slices.ContainsFunc(m.view.Members, func(o fleet.Member) bool {
		return o.Service == "router" && o.Instance == router
	})
}

// Settled says that the picture has all that can be known of the present: of every pool each router was heard for
// settleSpan, so that rates mean something.
func (m *Model) Settled() bool {
	if m.view == nil || !m.up {
		return false
	}
	for id := range m.view.Pools {
		for _, o := range m.view.Members {
			if o.Service != "router" {
				continue
			}
			p := m.pools[id]
			if p == nil || p.routers[o.Instance] == nil {
				return false
			}
			if !p.routers[o.Instance].settled() {
				return false
			}
		}
	}
	return true
}

// Picture is what is known now. While NATS is away it is that of the last second before.
func (m *Model) Picture() Picture {
	p := Picture{Version: Version, At: m.seen, NATS: Link{URL: m.URL, Up: m.up, Why: m.why}, Services: []Service{}, Pools: []Pool{}}
	if !m.up {
		since := m.seen
		if since.IsZero() {
			since = m.begun
		}
		p.NATS.Away = m.now.Sub(since).Seconds()
	}
	if m.view == nil {
		return p
	}
	p.Services = services(m.view.Members)
	for _, rec := range m.view.Pools {
		p.Pools = append(p.Pools, m.picture(rec))
	}
	slices.SortFunc(p.Pools, func(a, b Pool) int { return compare(a.Model, b.Model, a.ID, b.ID) })
	return p
}

func (m *Model) picture(rec fleet.Pool) Pool {
	out := Pool{ID: rec.ID, Model: rec.Model, Engines: []Engine{}, Roles: []Role{}, Decisions: []Change{}, History: []Sampling{}}
	heard := m.pools[rec.ID]
	if heard == nil {
		heard = &pool{}
	}
	fresh := heard.fresh(m.clock)
	for _, o := range m.view.Members {
		if o.Service == "router" {
			out.Routers++
		}
	}
	out.Reporting = len(fresh)
	out.Rates, out.Gauges = sumRates(fresh), sumGauges(fresh)
	last := heard.decided(m.seen, &out)
	engines := m.view.InPool(rec.ID)
	for _, e := range engines {
		out.Engines = append(out.Engines, engine(e, m.view.Draining[e.ID], fresh, last))
	}
	slices.SortStableFunc(out.Engines, func(a, b Engine) int { return compare(a.Name, b.Name, a.ID, b.ID) })
	out.Roles = roles(engines, m.view.Draining, last)
	return out
}

// fresh are the routers that were heard lately.
func (p *pool) fresh(clock time.Duration) []*router {
	var all []*router
	for _, r := range p.routers {
		if clock-r.heard <= staleAfter {
			all = append(all, r)
		}
	}
	return all
}

func sumRates(routers []*router) *Rates {
	var sum Rates
	known := false
	for _, r := range routers {
		if one, ok := r.rates(); ok {
			known = true
			sum.Arrivals += one.Arrivals
			sum.Prompt += one.Prompt
			sum.Uncached += one.Uncached
			sum.Output += one.Output
			sum.Shed += one.Shed
		}
	}
	if !known {
		return nil
	}
	if sum.Prompt > 0 {
		hit := 1 - sum.Uncached/sum.Prompt
		sum.Hit = &hit
	}
	return &sum
}

func sumGauges(routers []*router) *Gauges {
	if len(routers) == 0 {
		return nil
	}
	var sum Gauges
	for _, r := range routers {
		sum.Queued += int(r.last.Queued)
		sum.Inflight += int(r.last.Inflight)
		sum.Held = add(sum.Held, r.last.Held)
	}
	return &sum
}

// add adds what may not be known; a part that is not known is left out.
func add(sum *int, part *uint32) *int {
	if part == nil {
		return sum
	}
	n := int(*part)
	if sum != nil {
		n += *sum
	}
	return &n
}

func engine(e fleet.Engine, draining bool, routers []*router, last *autoscaler.Record) Engine {
	out := Engine{ID: e.ID, Name: e.Name, URL: e.URL, Role: e.Role, State: e.State, Why: e.Why, Draining: draining}
	if out.Name == "" {
		out.Name = e.ID
	}
	var context *int
	for _, r := range routers {
		load := r.last.load(e.ID)
		out.Inflight = add(out.Inflight, &load.Inflight)
		out.Backlog = add(out.Backlog, &load.Backlog)
		out.Decoding = add(out.Decoding, load.Decoding)
		context = add(context, load.Context)
	}
	if size := e.Blocks * e.BlockSize; context != nil && size > 0 {
		use := min(1, float64(*context)/float64(size))
		out.KV = &use
	}
	if last != nil {
		out.Load = load(&out, last.Roles[decide.Role(e.Role)].Model)
	}
	return out
}

// load compares what an engine has under way with what the learned model lets it bear: sequences in decode with those
// that the objective allows, and prompts with what it computes in a second. The greater counts.
func load(e *Engine, m decide.Learned) *float64 {
	var greatest *float64
	for _, part := range []struct {
		has   *int
		bears float64
	}{{e.Decoding, m.Sequences}, {e.Backlog, m.Rate}} {
		if part.has == nil || part.bears <= 0 {
			continue
		}
		if l := float64(*part.has) / part.bears; greatest == nil || l > *greatest {
			greatest = &l
		}
	}
	return greatest
}
