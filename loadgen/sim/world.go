package sim

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/router/queue"
)

// world is one simulation under way.
type world struct {
	o       Options
	clock   clock
	engines []*engine
	router  *router   // the first
	routers []*router // with it
	line    *line     // nil where nobody waits in the router
	elastic *elastic  // nil where engines stay
	client  client
	lose    *rand.Rand
	network network
	prompts *prompts
	spare   [][]uint32 // for the tokens of prompts that are not kept
	retried float64    // spent of what may be tried again

	progress func(done int)
	done     int
	answers  []answer
	load     loadLog
}

// engine is one simulated engine.
type engine struct {
	number int
	role   fleet.Role // of one that comes and goes
	core   *enginesim.Core
	step   enginesim.StepResult // under way
	busy   bool
	due    time.Duration // end of the step under way
	worked time.Duration
	wire   wire

	down      bool
	life      uint64 // from 1
	calls     []*call
	legs      []*call // whose prompts it computes for others; of one that comes and goes
	gaps      float64 // seconds between tokens
	gapped    float64 // these
	preempted int64   // in earlier lives
}

// underWay counts the requests in the engine.
func (e *engine) underWay() int {
	s := e.core.Stats()
	return s.Running + s.Waiting
}

// session is a client's conversation under way.
type session struct {
	turns  []Turn
	next   int // of turns
	tenant int
	fits   bool // in an Arrival
}

// turn is the one that was sent last.
func (s *session) turn() *Turn { return &s.turns[s.next-1] }

// key names the session: equal first prompts, equal keys.
func (s *session) key() (key uint64) {
	for _, segment := range s.turns[0].Prompt {
		key = mix64(key ^ segment.ID)
	}
	return key
}

// call is one request under way.
type call struct {
	session *session
	stage   int
	sent    time.Duration
	first   time.Duration
	last    time.Duration
	slowest time.Duration // longest gap between two tokens
	prompt  int
	output  int
	hit     int
	slot    int               // in its engine's calls
	retries int               // after engines that were lost
	without map[string]bool   // engines that have failed it
	leg     enginesim.Request // on the engine that computes the prompt for another
	request enginesim.Request
	router  *router
	booked  booking
	own     []uint32 // prompt tokens that nobody else has
	item    queue.Item

	predicted time.Duration // arrival to first token

	// Those where engines come and go.
	dispatched time.Duration
	prefilled  time.Duration // on an engine that had nothing else to do; 0 elsewhere
	quiet      bool          // its prefill engine had nothing to do
	leftHit    int           // of the prompt, on the engine that computed it
	legSlot    int           // in its prefill engine's legs
}

// answer is what came of one request.
type answer struct {
	stage, tenant     int
	refused           bool
	prompt, output    int
	hit               int
	sent, first, last time.Duration
	slowest           time.Duration
	predicted         time.Duration // arrival to first token, as the ledger said when it chose
	alone             time.Duration // TTFT of the prompt alone on an idle engine, nothing cached
	engine, prefill   int           // equal where one engine did all
}

func newWorld(o Options, w *Workload) (*world, error) {
	if o.Policy == "oracle" {
		o.Lag = 0
	}
	f := &world{o: o, lose: rand.New(rand.NewPCG(o.Seed, 0x105e)), answers: make([]answer, 0, w.Requests()),
		prompts: w.hashed(o.BlockSize)}
	f.network = network{Network: o.Network, clock: &f.clock}
	for i := range o.Engines() {
		e := &engine{number: i, life: 1}
		e.core = f.newCore(e)
		f.engines = append(f.engines, e)
	}
	var err error
	if f.routers, err = newRouters(o, f.engines); err != nil {
		return nil, err
	}
	f.router, f.line = f.routers[0], newLine(f)
	f.connect()
	return f, nil
}

// newCore is an engine at the beginning of a life.
func (f *world) newCore(e *engine) *enginesim.Core {
	profile, o := f.o.Profile, &f.o
	if slower := o.Slow[e.number]; slower > 0 {
		profile = profile.Scale(slower)
	}
	return enginesim.NewCore(enginesim.CoreOptions{
		Profile: profile, BlockSize: o.BlockSize, Blocks: int(float64(profile.KVTokens) * o.KV / float64(o.BlockSize)),
		MaxModelLen: maxModelLen, Noise: o.Noise, Seed: o.Seed<<16 + (e.life-1)<<48 + uint64(e.number), Hash: enginesim.QuickHash{},
	})
}

const maxModelLen = 262_144

// run takes events until nothing is left to happen.
func (f *world) run(w *Workload) {
	if f.elastic == nil {
		f.client = client{f: f, w: w, stage: -1}
		f.client.advance()
		f.clock.at(f.o.Scrape, action{kind: scrape})
	}
	f.planOutages()
	f.tellPeers()
	for {
		do, ok := f.clock.next()
		if !ok || f.elastic.over() {
			return
		}
		switch do.kind {
		case arrive:
			f.client.arrive(do.client)
		case stepped:
			f.stepped(f.engines[do.engine])
		case visible:
			f.show(do.batch)
		case lost:
			f.crash(f.engines[do.engine])
		case returned:
			f.restore(f.engines[do.engine])
		case missed:
			f.miss(f.engines[do.engine])
		case moved:
			for _, flow := range f.network.arrived() {
				f.received(flow)
			}
		case tell:
			f.tell(do.engine, false)
		case tellAll:
			f.tellPeers()
		case heard:
			f.heard(do.news)
		case fed, started, reported, ticked, polled:
			f.elastic.act(do)
		case scrape:
			if f.client.over() {
				continue // what is left are events of the last steps
			}
			if len(f.clock.events) == 0 && f.client.inFlight > 0 {
				panic("simulate: requests wait for what will not happen")
			}
			f.load.sample(f.engines)
			f.line.serve()
			for _, e := range f.engines {
				s := e.core.Stats()
				for _, r := range f.routers {
					r.scraped(f.clock.now, e.number, s.Usage(), s.Waiting)
				}
			}
			f.clock.at(f.clock.now+f.o.Scrape, action{kind: scrape})
		}
	}
}

// send routes a turn to an engine.
func (f *world) send(s *session) {
	turn := &s.turns[s.next]
	s.next++
	c := &call{session: s, stage: f.client.stage, sent: f.clock.now, router: f.routers[f.which()]}
	p := f.prompts.of[idOf(turn.Prompt)]
	if f.elastic != nil {
		p = f.elastic.prompt(turn.Prompt)
	}
	c.prompt = p.length
	c.request = enginesim.Request{
		ID: strconv.FormatUint(f.client.sent, 10), Prompt: f.tokensOf(c, p, turn), Hashes: p.hashes,
		MaxTokens: turn.Output, Answer: f.client.sent, Tag: c,
	}
	f.client.sent++
	f.retried = max(0, f.retried-retryShare)
	if f.line != nil {
		f.line.enter(c, p)
		return
	}
	f.dispatch(c, p)
}

// dispatch books a call on an engine and sends it there.
func (f *world) dispatch(c *call, p *prompt) {
	if !f.book(c, p) {
		if f.elastic != nil {
			f.elastic.hold(func() { f.dispatch(c, p) })
			return
		}
		f.finish(c, true)
		return
	}
	if f.elastic != nil {
		f.elastic.sent(c)
	}
	if c.booked.split() && f.prefill(c) {
		return
	}
	f.decode(c)
}

// book chooses an engine for a call; false where none is left.
func (f *world) book(c *call, p *prompt) (ok bool) {
	c.router.wish.Without = c.without
	booked, ok := c.router.choose(f.clock.now, c.session, p)
	if ok {
		c.booked = booked
		c.predicted = f.clock.now - c.sent + booked.held.Predicted()
	}
	return ok
}

// tokensOf are the tokens of a call's prompt until the call is finished.
func (f *world) tokensOf(c *call, p *prompt, turn *Turn) []uint32 {
	if p.tokens != nil {
		return p.tokens
	}
	if n := len(f.spare); n > 0 {
		c.own, f.spare = f.spare[n-1], f.spare[:n-1]
	}
	c.own = turn.Prompt.Append(c.own[:0])
	return c.own
}

// decode hands a request to the engine that answers it.
func (f *world) decode(c *call) {
	e := f.engines[c.booked.engine]
	if f.elastic != nil && e.down {
		f.elastic.abandon(c)
		return
	}
	for ; e.down; e = f.engines[c.booked.engine] { // nobody listens there
		if c.booked.held.Failed(f.router.time(f.clock.now)); !f.again(c) {
			return
		}
	}
	if err := e.core.Submit(&c.request); err != nil {
		f.engines[c.booked.prefill].core.Unpin(c.leg.ID)
		c.router.release(&c.booked, f.clock.now, false, 0)
		f.finish(c, true)
		return
	}
	e.enter(c)
	f.work(e)
}

// work begins the engine's next step, if it is idle and has something to compute.
func (f *world) work(e *engine) {
	if e.busy || e.down || !e.core.Step(&e.step) {
		return
	}
	e.busy, e.due = true, f.clock.now+e.step.Duration
	e.worked += e.step.Duration
	f.clock.at(e.due, action{kind: stepped, engine: e.number})
}

// stepped hands out what a step has computed, announces its events and begins the next.
func (f *world) stepped(e *engine) {
	now := f.clock.now
	if !e.busy || now != e.due {
		return // a step of a life that is over
	}
	f.announce(e)
	for i := range e.step.Outputs {
		f.token(&e.step.Outputs[i], now) // may bring new requests to the engine, which is busy until all are told
	}
	for i := range e.step.Pulls {
		f.fetch(e, &e.step.Pulls[i])
	}
	e.busy = false
	f.work(e)
}

// token takes one token of an answer to its client.
func (f *world) token(o *enginesim.Output, now time.Duration) {
	c := o.Request.Tag.(*call)
	if o.Request == &c.leg {
		c.hit = o.Hit
		if f.elastic != nil {
			f.elastic.computed(c, now)
		}
		f.computed(c)
		return
	}
	if o.Index == 0 {
		c.first = now
		if !c.booked.split() {
			c.hit = o.Hit
		}
		c.router.firstByte(&c.booked, now)
		f.line.serve()
		c.router.token(&c.booked, 0)
	} else {
		tokens := o.Index + 1 - c.output // since the last that the engine has told of
		gap := (now - c.last) / time.Duration(tokens)
		c.slowest = max(c.slowest, gap)
		e := f.engines[c.booked.engine]
		e.gaps, e.gapped = e.gaps+(now-c.last).Seconds(), e.gapped+float64(tokens)
		for range tokens {
			c.router.token(&c.booked, gap)
		}
	}
	c.last = now
	c.output = o.Index + 1
	if o.Finished {
		c.router.release(&c.booked, now, true, c.output)
		f.engines[c.booked.engine].leave(c)
		f.finish(c, false)
	}
}

// finish notes a request's end and lets the client go on.
func (f *world) finish(c *call, refused bool) {
	f.line.left(c)
	if f.elastic != nil {
		f.elastic.ended(c, refused)
		f.client.ended(c.session)
		return
	}
	f.answers = append(f.answers, answer{
		stage: c.stage, refused: refused, prompt: c.prompt, output: c.output, hit: c.hit,
		sent: c.sent, first: c.first, last: c.last, slowest: c.slowest, engine: c.booked.engine, prefill: c.booked.prefill,
		alone: f.alone(c.prompt), tenant: c.session.tenant, predicted: c.predicted,
	})
	if f.o.Answered != nil {
		f.o.Answered(c.answer(f.o.FrontEnd, refused))
	}
	if c.own != nil {
		f.spare = append(f.spare, c.own)
	}
	f.done++
	if f.progress != nil && f.done%256 == 0 {
		f.progress(f.done)
	}
	f.client.ended(c.session)
}

// alone is how long an idle engine takes to the first token of a prompt that nothing of is cached.
func (f *world) alone(prompt int) (t time.Duration) {
	const budget = 8192
	for from := 0; from < prompt; from += budget {
		n := min(budget, prompt-from)
		t += f.o.Profile.StepTime(enginesim.Load{PrefillTokens: n, TokenPairs: float64(n) * (float64(from) + float64(n)/2)})
	}
	return t
}
