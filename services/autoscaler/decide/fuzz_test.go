package decide_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// chaos makes observations of which nothing can be relied upon.
type chaos struct {
	*rand.Rand
	totals decide.Routers
	at     time.Time
}

// figure is a number or, now and then, none.
func (c *chaos) figure(usual float64) float64 {
	switch c.IntN(40) {
	case 0:
		return math.NaN()
	case 1:
		return math.Inf(1 - 2*c.IntN(2))
	case 2:
		return -usual
	case 3:
		return usual * 1e300
	case 4:
		return 0
	}
	return usual * c.Float64()
}

// setting is what a file can say: a number.
func (c *chaos) setting(usual float64) float64 {
	if x := c.figure(usual); !math.IsNaN(x) && !math.IsInf(x, 0) {
		return x
	}
	return 0
}

func (c *chaos) count(usual int) int {
	switch c.IntN(40) {
	case 0:
		return -c.IntN(usual + 1)
	case 1:
		return math.MaxInt
	case 2:
		return math.MinInt
	}
	return c.IntN(usual + 1)
}

func (c *chaos) time(age time.Duration) time.Time {
	switch c.IntN(20) {
	case 0:
		return time.Time{}
	case 1:
		return c.at.Add(time.Hour)
	case 2:
		return c.at.Add(-time.Hour)
	}
	return c.at.Add(-time.Duration(c.Float64() * float64(age)))
}

func (c *chaos) observe() decide.Observation {
	c.at = c.at.Add(5 * time.Second)
	if c.IntN(20) == 0 {
		c.at = c.at.Add(time.Duration(c.IntN(7200)-3600) * time.Second)
	}
	add := func(total *float64, usual float64) {
		*total += usual * c.Float64()
		if c.IntN(100) == 0 {
			*total = c.figure(1e6)
		}
	}
	add(&c.totals.Arrivals, 200)
	add(&c.totals.Prompt, 1e6)
	add(&c.totals.Uncached, 5e5)
	add(&c.totals.Output, 1e5)
	add(&c.totals.Finished, 200)
	o := decide.Observation{Routers: c.totals, Replicas: make(map[decide.Role]decide.Replicas)}
	r := &o.Routers
	r.Heard, r.Alive, r.Reporting = c.time(20*time.Second), c.count(3), c.count(3)
	r.Queued, r.Tokens, r.Held = c.count(5), c.count(10_000), c.count(1)
	if c.IntN(3) > 0 {
		r.Heard, r.Alive, r.Reporting, r.Held = c.at, 1, 1, 0
	}
	for range c.IntN(30) {
		r.Ended = append(r.Ended, decide.Request{
			Prompt: c.count(10_000), Uncached: c.count(50_000), Output: c.count(1000), Prefill: time.Duration(c.count(1e10)),
			TTFT: time.Duration(c.count(1e10)), ITL: time.Duration(c.count(1e8)), Failed: c.IntN(10) == 0,
		})
	}
	for _, role := range []decide.Role{decide.Prefill, decide.Decode, decide.Both} {
		if c.IntN(30) > 0 && role != decide.Both {
			o.Replicas[role] = c.replicas()
		}
		for i := range c.IntN(8) {
			o.Engines = append(o.Engines, c.engine(role, i))
		}
	}
	return o
}

func (c *chaos) replicas() decide.Replicas {
	r := decide.Replicas{Read: c.time(40 * time.Second), Desired: c.count(12), Ready: c.count(12)}
	if c.IntN(2) == 0 {
		r.Read, r.Ready = c.at, r.Desired
	}
	for range max(0, c.IntN(8)-5) {
		s := decide.Starting{Created: c.time(5 * time.Minute)}
		if c.IntN(3) == 0 {
			s.Stuck = []string{"Unschedulable", "CrashLoopBackOff"}[c.IntN(2)]
		}
		r.Starting = append(r.Starting, s)
		r.Starts = append(r.Starts, time.Duration(c.count(int(5*time.Minute))))
	}
	if c.IntN(20) == 0 {
		r.Conflict = "HorizontalPodAutoscaler x"
	}
	return r
}

func (c *chaos) engine(role decide.Role, i int) decide.Engine {
	e := decide.Engine{
		ID: string(role) + strconv.Itoa(i), Role: role, Serving: c.IntN(5) > 0, Draining: c.IntN(5) == 0, Operator: c.IntN(20) == 0,
		Inflight: c.count(3) - 1, Backlog: c.count(2) - 1, Decoding: c.count(60), Context: c.count(100_000),
		Gaps: c.figure(1e5), Tokens: c.figure(1e6),
		Scrape: decide.Scrape{
			At: c.time(20 * time.Second), Running: c.figure(50), Waiting: c.figure(9), KVUsage: c.figure(1), KVTokens: c.count(300_000),
			Preemptions: c.figure(5), Generated: c.figure(1e6),
		},
	}
	if c.IntN(2) == 0 {
		e.Decoding, e.Inflight, e.Backlog, e.Scrape = 0, 0, 0, decide.Scrape{At: c.at}
	}
	return e
}

func (c *chaos) policy() decide.Policy {
	return decide.Policy{
		Mode: []decide.Mode{decide.On, decide.On, decide.UpOnly, decide.Shadow, decide.Off}[c.IntN(5)],
		Bounds: map[decide.Role]decide.Bounds{
			decide.Prefill: {Min: c.IntN(3), Max: c.IntN(20), GPUs: c.IntN(3)}, decide.Decode: {Max: 8},
		},
		GPUs: max(0, c.IntN(60)-20), IdleAfter: time.Duration(c.IntN(2)) * time.Minute, FCFS: c.IntN(2) == 0,
		Headroom: c.setting(1.3), TTFT: time.Duration(c.count(int(3 * time.Second))), ITL: time.Duration(c.count(int(60 * time.Millisecond))),
		Prior: decide.Model{Rate: c.setting(20_000), Step: c.setting(20), KVTokens: c.count(300_000)},
	}
}

// Whatever is observed: nothing breaks, figures are numbers, nothing is taken away half blind, budgets and bounds hold.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint16(150))
	}
	f.Fuzz(func(t *testing.T, seed uint64, ticks uint16) {
		c := &chaos{Rand: rand.New(rand.NewPCG(seed, 1)), at: start}
		s := decide.State{Policy: c.policy()}
		for i := range ticks % 400 {
			o := c.observe()
			if i%50 == 49 {
				s.Policy = c.policy()
			}
			next, d := s.Decide(o, c.at)
			if i%10 == 0 {
				var again decide.State
				if err := json.Unmarshal([]byte(encode(t, s)), &again); err != nil {
					t.Fatal(err)
				}
				if _, repeated := again.Decide(o, c.at); !reflect.DeepEqual(repeated, d) {
					t.Fatalf("encoding the state changes a decision:\n%+v\n%+v", d, repeated)
				}
			}
			if _, err := json.Marshal(d); err != nil {
				t.Fatalf("%v: %+v", err, d)
			}
			judge(t, &s.Policy, &o, &d)
			judgeSteps(t, &s.Policy, &o, &d)
			for role := range d.Roles {
				d.Sentences("pool", role)
			}
			s = next
		}
	})
}

func judge(t *testing.T, p *decide.Policy, o *decide.Observation, d *decide.Decision) {
	t.Helper()
	heard := !o.Routers.Heard.IsZero() && d.At.Sub(o.Routers.Heard) <= 15*time.Second && o.Routers.Alive > 0
	now, target, floor := 0, 0, 0
	for role, r := range d.Roles {
		b, x := p.Bounds[role], o.Replicas[role]
		gpus := max(b.GPUs, 1)
		now, target, floor = now+r.Now*gpus, target+r.Target*gpus, floor+gpus
		if r.Target < 0 || r.Now < 0 || r.Target > 20_000 {
			t.Fatalf("%s: %+v", role, r)
		}
		if r.Target > r.Now && b.Max > 0 && r.Target > b.Max {
			t.Fatalf("%s goes up to %d over the maximum %d", role, r.Target, b.Max)
		}
		read := !x.Read.IsZero() && d.At.Sub(x.Read) <= 30*time.Second
		if !read && r.Target != r.Now {
			t.Fatalf("%s: %d become %d, and what runs was not read", role, r.Now, r.Target)
		}
		if r.Target < r.Now {
			coming := slices.ContainsFunc(x.Starting, func(s decide.Starting) bool {
				return s.Stuck == "" && d.At.Sub(s.Created) < time.Minute
			})
			if !heard || coming || d.Blind != "" || p.Mode == decide.UpOnly || p.Mode == decide.Off {
				t.Fatalf("%s goes down: heard %v, coming %v, mode %s, %+v", role, heard, coming, p.Mode, d)
			}
		}
	}
	if p.GPUs > 0 && p.Mode != decide.Off && target > max(p.GPUs, now, floor) {
		t.Fatalf("%d GPUs where %d are allowed and %d there: %+v", target, p.GPUs, now, d.Roles)
	}
}

func judgeSteps(t *testing.T, p *decide.Policy, o *decide.Observation, d *decide.Decision) {
	t.Helper()
	scales := map[decide.Role]int{}
	for _, s := range decide.Steps(*p, *o, *d) {
		r := d.Roles[s.Role]
		if p.Mode != decide.On && p.Mode != decide.UpOnly || o.Replicas[s.Role].Conflict != "" {
			t.Fatalf("mode %s, conflict %q: %+v", p.Mode, o.Replicas[s.Role].Conflict, s)
		}
		less := s.Do == decide.Drain || s.Do == decide.Scale && s.To < s.From
		if less && (p.Mode == decide.UpOnly || d.Blind != "") {
			t.Fatalf("mode %s, blind %q: %+v", p.Mode, d.Blind, s)
		}
		if s.Do == decide.Scale {
			if scales[s.Role]++; scales[s.Role] > 1 || s.To < 0 || s.To == s.From || s.From != o.Replicas[s.Role].Desired {
				t.Fatalf("%+v of %+v", s, r)
			}
		}
		for _, e := range o.Engines {
			if e.Operator && (e.ID == s.Engine || slices.Contains(s.Victims, e.ID)) && s.Do != decide.Drain {
				t.Fatalf("what an operator drains is touched: %+v", s)
			}
			if slices.Contains(s.Victims, e.ID) && (!e.Draining || e.Inflight > 0 || e.Role != s.Role) {
				t.Fatalf("%+v is to be taken away: %+v", e, s)
			}
		}
	}
}
