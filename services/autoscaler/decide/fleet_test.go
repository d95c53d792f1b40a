package decide_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// demand is what comes to a pool in a second.
type demand struct {
	rate     float64 // requests
	prompt   int
	uncached int
	output   int
}

// pool is a pool in the fluid limit: engines serve what comes, sequences decode by Little's law, replicas start after
// a time, and orders are carried out at once.
type pool struct {
	*testing.T
	state    decide.State
	policy   decide.Policy
	truth    decide.Model
	now      time.Time
	startup  time.Duration
	totals   decide.Routers
	engines  []decide.Engine
	starting map[decide.Role][]decide.Starting
	born     []time.Duration
	next     int
	blind    func(*decide.Observation) // what becomes of the observation
	orders   []decide.Step
	last     decide.Decision
	ticks    int
	strict   bool // check each tick that encoding the state changes nothing, not only some
}

func reference() decide.Model {
	return decide.Model{Overhead: .015, Rate: 16_000, Step: 14, Sequence: .05, Kilo: .056, KVTokens: 300_000, MaxSeqs: 256, Mixed: 1.5}
}

func newPool(t *testing.T, policy decide.Policy, replicas map[decide.Role]int) *pool {
	t.Helper()
	if policy.TTFT == 0 {
		policy.TTFT, policy.ITL = 1500*time.Millisecond, 30*time.Millisecond
	}
	if policy.Mode == "" {
		policy.Mode = decide.On
	}
	p := &pool{
		T: t, policy: policy, truth: reference(), now: start, startup: 110 * time.Second,
		starting: make(map[decide.Role][]decide.Starting),
	}
	for _, role := range []decide.Role{decide.Prefill, decide.Decode, decide.Both} {
		if n, ok := replicas[role]; ok {
			p.starting[role] = nil
			for range n {
				p.add(role)
			}
		}
	}
	return p
}

func (p *pool) add(role decide.Role) {
	p.next++
	p.engines = append(p.engines, decide.Engine{ID: fmt.Sprintf("%s-%d", role, p.next), Role: role, Serving: true})
}

// run lets a demand come for a time, in ticks of five seconds.
func (p *pool) run(period time.Duration, d demand) decide.Decision {
	for end := p.now.Add(period); p.now.Before(end); {
		p.tick(d)
	}
	return p.last
}

func (p *pool) tick(d demand) {
	const seconds = 5.
	p.now = p.now.Add(5 * time.Second)
	p.born = nil
	for _, role := range []decide.Role{decide.Prefill, decide.Decode, decide.Both} {
		if _, ok := p.starting[role]; !ok {
			continue
		}
		p.starting[role] = slices.DeleteFunc(p.starting[role], func(s decide.Starting) bool {
			ready := s.Stuck == "" && p.now.Sub(s.Created) >= p.startup
			if ready {
				p.add(role)
				p.born = append(p.born, p.startup)
			}
			return ready
		})
	}
	n := d.rate * seconds
	p.totals.Arrivals += n
	p.totals.Prompt += n * float64(d.prompt)
	p.totals.Uncached += n * float64(d.uncached)
	p.totals.Finished += n
	p.totals.Output += n * float64(d.output)
	p.totals.Ended = nil
	for range min(int(n), 64) {
		prefill := p.truth.Overhead + float64(d.uncached)/p.truth.Rate
		p.totals.Ended = append(p.totals.Ended, decide.Request{
			Prompt: d.prompt, Uncached: d.uncached, Output: d.output, Prefill: time.Duration(prefill * 1e9),
			TTFT: time.Duration(prefill * 1.2e9), ITL: 20 * time.Millisecond,
		})
	}
	p.decode(d, seconds)
	p.decide()
}

// decode spreads the sequences over the engines: n = rate x output x ITL(n).
func (p *pool) decode(d demand, seconds float64) {
	var serving []*decide.Engine
	for i := range p.engines {
		if e := &p.engines[i]; e.Role != decide.Prefill && !e.Draining {
			serving = append(serving, e)
		} else if e.Draining {
			e.Inflight, e.Decoding, e.Context = 0, 0, 0
		}
	}
	if len(serving) == 0 {
		return
	}
	context := float64(d.prompt) + float64(d.output)/2
	step := p.truth.Step
	if serving[0].Role == decide.Both {
		step += p.truth.Mixed * d.rate * float64(d.uncached) / 1000 / float64(len(serving))
	}
	each := d.rate * float64(d.output) / 1000 / float64(len(serving))
	slope := p.truth.Sequence + p.truth.Kilo*context/1000
	sequences := 200. // as many as it takes, where there is no steady state
	if each*slope < 1 {
		sequences = min(sequences, each*step/(1-each*slope))
	}
	whole := int(math.Round(sequences))
	for _, e := range serving {
		e.Decoding, e.Inflight, e.Context = whole, whole, int(float64(whole)*context)
		if whole > 0 {
			ms := step + slope*float64(whole)
			tokens := float64(whole) * seconds * 1000 / ms
			e.Tokens, e.Gaps = e.Tokens+tokens, e.Gaps+tokens*ms/1000
		}
	}
}

func (p *pool) observe() decide.Observation {
	o := decide.Observation{Routers: p.totals, Replicas: make(map[decide.Role]decide.Replicas)}
	o.Routers.Heard, o.Routers.Alive, o.Routers.Reporting = p.now.Add(-time.Second), 1, 1
	for role, starting := range p.starting {
		r := decide.Replicas{Read: p.now, Starting: slices.Clone(starting), Starts: p.born}
		for _, e := range p.engines {
			if e.Role == role {
				r.Ready++
			}
		}
		r.Desired = r.Ready + len(starting)
		o.Replicas[role] = r
	}
	o.Engines = slices.Clone(p.engines)
	for i := range o.Engines {
		o.Engines[i].Scrape = decide.Scrape{At: p.now, Running: float64(o.Engines[i].Inflight), KVTokens: 300_000}
	}
	if p.blind != nil {
		p.blind(&o)
	}
	return o
}

// decide decides, and carries the steps out.
func (p *pool) decide() decide.Decision {
	p.Helper()
	o := p.observe()
	p.state.Policy = p.policy
	next, d := p.state.Decide(o, p.now)
	if p.ticks++; p.ticks%20 == 1 || p.strict {
		p.twice(o, next, d)
	}
	p.state, p.last = next, d
	for _, step := range decide.Steps(p.policy, o, d) {
		p.act(step)
	}
	return d
}

// twice decides again, with a state that was encoded and decoded.
func (p *pool) twice(o decide.Observation, next decide.State, d decide.Decision) {
	p.Helper()
	before := encode(p.T, p.state)
	p.state.Decide(o, p.now)
	if after := encode(p.T, p.state); after != before {
		p.Fatalf("at %v deciding changed the state before", p.now.Sub(start))
	}
	var again decide.State
	if err := json.Unmarshal([]byte(before), &again); err != nil {
		p.Fatal(err)
	}
	again, repeated := again.Decide(o, p.now)
	if !reflect.DeepEqual(d, repeated) || encode(p.T, next) != encode(p.T, again) {
		p.Fatalf("at %v encoding the state changed the decision:\n%+v\n%+v", p.now.Sub(start), d, repeated)
	}
}

func (p *pool) act(s decide.Step) {
	p.Helper()
	switch s.Do {
	case decide.Drain, decide.Undrain:
		for i := range p.engines {
			if p.engines[i].ID == s.Engine {
				p.engines[i].Draining = s.Do == decide.Drain
			}
		}
	case decide.Scale:
		p.orders = append(p.orders, s)
		if have := p.count(s.Role); s.From != have {
			p.Fatalf("at %v an order from %d, and there are %d", p.now.Sub(start), s.From, have)
		}
		for range s.To - s.From {
			p.starting[s.Role] = append(p.starting[s.Role], decide.Starting{Created: p.now})
		}
		if s.From-s.To > 0 {
			p.starting[s.Role] = p.starting[s.Role][:len(p.starting[s.Role])-s.Starting]
			p.engines = slices.DeleteFunc(p.engines, func(e decide.Engine) bool {
				gone := slices.Contains(s.Victims, e.ID)
				if gone && (e.Inflight > 0 || !e.Draining) {
					p.Fatalf("at %v %s is taken away while it serves", p.now.Sub(start), e.ID)
				}
				return gone
			})
			if have := p.count(s.Role); have != s.To {
				p.Fatalf("at %v %+v leaves %d", p.now.Sub(start), s, have)
			}
		}
	}
}

func (p *pool) count(role decide.Role) int {
	n := len(p.starting[role])
	for _, e := range p.engines {
		if e.Role == role {
			n++
		}
	}
	return n
}

func (p *pool) target(role decide.Role, low, high int) decide.RoleDecision {
	p.Helper()
	r, ok := p.last.Roles[role]
	if !ok || r.Target < low || r.Target > high {
		p.Fatalf("after %v: %s %+v, want a target of %d to %d", p.now.Sub(start), role, r, low, high)
	}
	return r
}

func encode(t *testing.T, s decide.State) string {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 64<<10 {
		t.Fatalf("a state of %d bytes", len(data))
	}
	return string(data)
}
