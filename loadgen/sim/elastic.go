package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Elastic describes a fleet whose engines come and go as a Scaler orders, and what is asked of it. The engines, the
// router's ledger and its queue are those of Run. Equal values give equal runs, to the bit.
type Elastic struct {
	Prefill, Decode enginesim.Profile   // the truth of an engine of each role; nobody tells it to the scaler
	Initial         map[decide.Role]int // replicas that serve from the beginning
	Most            int                 // replicas of each role; 0 is 40
	Startup         time.Duration       // median from order to service
	Failed          float64             // share of starts that take three times as long, every other one after a crash
	SLO             SLO
	FCFS            bool // the router sends requests on as they come; else it holds them in the order of service
	Shared          bool // prompts share prefixes: engines' caches and the index are simulated, else all that is reused is nothing
	Seed            uint64
	Arrivals        func() (Arrival, bool) // in order of time; false at the end
	Until           time.Duration          // the end of the experiment: replicas are counted, and scaled, until then
	Scaler          Scaler
	Gentle          bool          // a replica that is taken away still answers what it has under way; else that is lost
	Scraped         time.Duration // how old the engines' own words are; 0 is 1 s
	Faults          Faults

	Answered func(Outcome) // told of each request as it ends; may be nil
	Ticked   func(Tick)    // told of each time the scaler was asked; may be nil
	Enough   func() bool   // asked then whether the run may end here; may be nil
}

// Arrival is one request that comes.
type Arrival struct {
	At     time.Duration
	Prompt Prompt
	Output int
	Fits   bool // some number of engines could answer it within the objectives
}

// Scaler is asked every 5 s what to do with the fleet.
type Scaler interface {
	Steps(o decide.Observation, now time.Time) []decide.Step
}

// Outcome is what became of a request.
type Outcome struct {
	At   time.Duration // of its arrival
	Fits bool
	Lost bool          // its replica was taken away, or it was not over when the run was
	TTFT time.Duration // from its arrival
	ITL  time.Duration // mean
}

// Tick is the fleet at one time.
type Tick struct {
	At     time.Duration
	Roles  map[decide.Role]Count
	Queued int // requests that wait in the router
	Active int // those in engines
	Steps  []decide.Step
}

// Count is replicas by what they do.
type Count struct{ Ordered, Serving, Starting, Draining int }

// Spent is what the replicas of a role cost and what was done with them.
type Spent struct {
	Seconds, Starting, Draining float64 // replica-seconds, of these before service, and with routers told to pass them over
	Most                        int     // replicas at once, whatever they do
	Flips                       int     // changes of direction of what is ordered and does not drain
	Ordered                     int     // replicas beside the initial ones
	Unused                      int     // of these, gone without having been ready
	Duplicates                  int     // replicas of orders whose observation did not show the order before
	Conflicts                   int     // orders refused, as the number had changed since it was observed
}

// Elapsed is the sum of a run.
type Elapsed struct {
	Roles    map[decide.Role]Spent
	Requests int
	Until    time.Duration
}

const (
	tickEvery  = 5 * time.Second
	reportAge  = time.Second
	pollEvery  = 50 * time.Millisecond // that the router looks whether somebody may go on
	overtime   = 3 * time.Minute       // after Until, for what is under way
	mostPods   = 40
	reportSize = 512 // requests of a sample
)

// elastic is the part of a world that comes and goes.
type elastic struct {
	Elastic
	f       *world
	blank   []uint32 // prompts of which only the length matters
	pods    []*pod   // by engine, those that are gone too
	roles   map[decide.Role]*role
	hearing hearing
	held    []func() // requests that came while nobody served
	next    Arrival
	more    bool
	closed  bool
	polls   int
	ends    bool
}

// Begin is the time of day at which runs begin, as scalers and routers see it.
func Begin() time.Time { return time.Unix(1_700_000_000, 0) }

// RunElastic simulates until all requests are answered, or 3 minutes after Until.
func RunElastic(e Elastic) (*Elapsed, error) {
	f, err := newElastic(e)
	if err != nil {
		return nil, err
	}
	f.run(f.client.w)
	return f.elastic.elapsed(), nil
}

func newElastic(e Elastic) (*world, error) {
	if e.Startup <= 0 || e.Until <= 0 || e.Scaler == nil || e.Arrivals == nil {
		return nil, fmt.Errorf("elastic fleet: start-up %v, until %v, a scaler and arrivals are needed", e.Startup, e.Until)
	}
	if e.Most == 0 {
		e.Most = mostPods
	}
	if e.Scraped == 0 {
		e.Scraped = 1 * time.Second
	}
	o := Options{Prefill: 1, Decode: 1, Profile: e.Decode, BlockSize: plainBlock, Seed: e.Seed, SLO: e.SLO, Order: Turns, Policy: "warm"}
	if e.FCFS {
		o.Order = ""
	}
	if e.Shared {
		o.BlockSize = sharedBlock
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	x := &elastic{Elastic: e, blank: make([]uint32, maxModelLen), roles: map[decide.Role]*role{}}
	f := &world{o: o, elastic: x, lose: rand.New(rand.NewPCG(o.Seed, 0x105e)), prompts: &prompts{size: o.BlockSize}}
	x.f = f
	f.network = network{Network: o.Network, clock: &f.clock}
	if f.routers, err = newRouters(o, nil); err != nil {
		return nil, err
	}
	f.router, f.line = f.routers[0], newLine(f)
	f.client = client{f: f, w: &Workload{Stages: make([]Stage, 1)}, left: 1, began: make([]time.Duration, 1)}
	x.begin()
	return f, nil
}

// Tokens per KV block. Larger blocks than vLLM's 16 waste little and make long prompts cheap to simulate.
const (
	plainBlock  = 64
	sharedBlock = 256
)

// tokenEvery is in how many steps an engine whose prompts share nothing tells of a sequence's tokens: the router knows its
// contexts as of less than half a second ago.
const tokenEvery = 16

// begin starts the initial replicas and schedules what comes.
func (x *elastic) begin() {
	c := &x.f.clock
	for i, name := range [2]decide.Role{decide.Prefill, decide.Decode} {
		r := &role{name: name, number: i, rng: rand.New(rand.NewPCG(x.Seed, 0x57a7+uint64(i)))}
		x.roles[name] = r
		for range x.Initial[name] {
			x.ready(x.order(r))
		}
		r.Spent.Ordered = 0
	}
	x.hearing.begin(x)
	c.at(tickEvery-reportAge, action{kind: reported})
	c.at(tickEvery, action{kind: ticked})
	c.at(pollEvery, action{kind: polled})
	x.feed()
}

// act is what happens in a fleet that comes and goes alone.
func (x *elastic) act(do action) {
	now := x.f.clock.now
	switch do.kind {
	case fed:
		x.f.client.left++
		a := x.next
		x.hearing.arrived(&a)
		x.f.client.arrive(&session{turns: []Turn{{Prompt: a.Prompt, Output: a.Output}}, fits: a.Fits})
		x.feed()
	case started:
		x.ready(x.pods[do.engine])
	case reported:
		x.hearing.report(x)
		x.again(now+tickEvery, reported)
	case ticked:
		x.tick()
		x.again(now+tickEvery, ticked)
	case polled:
		x.poll()
		x.again(now+pollEvery, polled)
	}
}

// again schedules what recurs while the experiment lasts.
func (x *elastic) again(at time.Duration, k kind) {
	if at <= x.Until || !x.f.client.over() && at <= x.Until+overtime {
		x.f.clock.at(at, action{kind: k})
	}
}

// over says that what is still under way will not be waited for.
func (x *elastic) over() bool { return x != nil && (x.ends || x.f.clock.now > x.Until+overtime) }

// feed schedules the next arrival.
func (x *elastic) feed() {
	if x.next, x.more = x.Arrivals(); x.more {
		x.f.clock.at(x.next.At, action{kind: fed})
		return
	}
	if c := &x.f.client; !x.closed {
		x.closed = true
		if c.left--; c.left == 0 {
			c.advance()
		}
	}
}

// prompt is what engines and router compute of a prompt.
func (x *elastic) prompt(p Prompt) *prompt {
	if x.Shared {
		x.f.prompts.kept = 0 // what is under way alone is kept
		return x.f.prompts.hash(p)
	}
	n := p.Len()
	return &prompt{length: n, tokens: x.blank[:n]}
}

// poll lets the router look again, and tells it what engines say of themselves each second.
func (x *elastic) poll() {
	x.f.line.serve()
	if x.polls++; x.polls%20 != 0 {
		return
	}
	x.gather()
	for _, p := range x.pods {
		if p.serving() {
			s := p.engine.core.Stats()
			x.f.router.scraped(x.f.clock.now, p.engine.number, s.Usage(), s.Waiting)
		}
	}
}

// tick asks the scaler and does what it says.
func (x *elastic) tick() {
	now := x.f.clock.now
	x.disturb(now)
	o := x.hearing.observe(x)
	if hear := x.Faults.Hear; hear != nil {
		hear(&o, now)
	}
	steps := x.Scaler.Steps(o, x.f.router.time(now))
	for i := range steps {
		x.step(&steps[i], &o)
	}
	if x.Ticked != nil {
		x.Ticked(x.snapshot(steps))
	}
	x.ends = x.Enough != nil && x.Enough()
}

// snapshot is the fleet now.
func (x *elastic) snapshot(steps []decide.Step) Tick {
	t := Tick{At: x.f.clock.now, Roles: map[decide.Role]Count{}, Steps: steps, Queued: x.hearing.queued}
	for name, r := range x.roles {
		t.Roles[name] = Count{Ordered: r.ordered, Serving: r.count[serving], Starting: r.count[starting], Draining: r.count[draining]}
	}
	t.Active = x.f.client.inFlight - t.Queued
	return t
}

// newCore is the engine of a replica.
func (x *elastic) newCore(e *engine) *enginesim.Core {
	profile := x.Decode
	if e.role == fleet.Prefill {
		profile = x.Prefill
	}
	return enginesim.NewCore(enginesim.CoreOptions{
		Profile: profile, BlockSize: x.f.o.BlockSize, Blocks: profile.KVTokens / x.f.o.BlockSize, MaxModelLen: maxModelLen, MaxSeqs: 256,
		Noise: x.f.o.Noise, Seed: x.Seed<<16 + uint64(e.number), Hash: enginesim.QuickHash{}, NoPrefixCache: !x.Shared, Interval: tokenEvery,
	})
}

// ended tells of a request that is over.
func (x *elastic) ended(c *call, lost bool) {
	a := c.answer(0, lost)
	x.hearing.ended(c, &a)
	if x.Answered != nil {
		x.Answered(Outcome{At: c.sent, Fits: c.session.fits, Lost: lost, TTFT: a.TTFT, ITL: a.TPOT})
	}
}

// elapsed sums up.
func (x *elastic) elapsed() *Elapsed {
	all := &Elapsed{Roles: map[decide.Role]Spent{}, Requests: int(x.f.client.sent), Until: x.Until}
	for name, r := range x.roles {
		r.pass(x.Until, x.Until)
		all.Roles[name] = r.Spent
	}
	return all
}

// hold keeps a request for which there is no engine at all.
func (x *elastic) hold(again func()) { x.held = append(x.held, again) }

// release sends on what was held, now that somebody serves.
func (x *elastic) release() {
	if len(x.held) == 0 || !x.f.router.pool.Ready(x.f.router.view, modelName) {
		return
	}
	held := x.held
	x.held = nil
	for _, again := range held {
		again()
	}
}

// unbooked is a request whose replica is gone.
func (x *elastic) unbook(c *call) {
	c.booked.held.Release(x.f.router.time(x.f.clock.now), false, false)
	x.f.finish(c, true)
}
