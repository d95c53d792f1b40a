package decide

import "time"

// Mode says what may be done with a decision.
type Mode string

// The modes. The empty Mode is Shadow.
const (
	Off    Mode = "off"     // nothing is decided
	Shadow Mode = "shadow"  // decided and shown, not acted on
	UpOnly Mode = "up-only" // acted on, but nothing is taken away
	On     Mode = "on"
)

// Policy is what an operator may set of a pool. A zero field means its default.
type Policy struct {
	Mode      Mode            `json:"mode,omitempty"`
	TTFT      time.Duration   `json:"ttft,omitempty"`      // objective of each request; 2 s
	ITL       time.Duration   `json:"itl,omitempty"`       // objective of a request's mean; 50 ms
	Bounds    map[Role]Bounds `json:"bounds,omitempty"`    // of roles that are absent: the defaults of Bounds
	GPUs      int             `json:"gpus,omitempty"`      // that all roles may take; 0 is no limit
	Headroom  float64         `json:"headroom,omitempty"`  // factor on the demand: 1.0 cheap, 1.3 strict; 1.1
	IdleAfter time.Duration   `json:"idleAfter,omitempty"` // without a request for so long, to zero; 0 is never
	Startup   time.Duration   `json:"startup,omitempty"`   // created to ready, until starts were seen; 120 s
	FCFS      bool            `json:"fcfs,omitempty"`      // routers serve in order of arrival: no objectives at their queue
	Prior     Model           `json:"prior"`               // of one replica, until learned
}

// Bounds are those of one role.
type Bounds struct {
	Min  int `json:"min,omitempty"`  // 1, or 0 where IdleAfter is set
	Max  int `json:"max,omitempty"`  // 0 is no limit
	GPUs int `json:"gpus,omitempty"` // of a replica; 1
}

// Model is what one replica can do. A zero field means that of the reference model on two H100 (autoscaler policy,
// section 1: t = .015 + u/16,000 s; ITL = 14 + .05 n + 5.6e-5 kv ms; 300,000 tokens; 256 sequences).
type Model struct {
	Overhead float64 `json:"overhead,omitempty"` // p0: seconds of a prefill beside its tokens
	Rate     float64 `json:"rate,omitempty"`     // V: uncached tokens/s of prefill
	Step     float64 `json:"step,omitempty"`     // a: ms of a decode step
	Sequence float64 `json:"sequence,omitempty"` // b: ms for each sequence in it
	Kilo     float64 `json:"kilo,omitempty"`     // c: ms for each 1,000 tokens of context in it
	KVTokens int     `json:"kvTokens,omitempty"` // capacity of the cache; engines tell their own
	MaxSeqs  int     `json:"maxSeqs,omitempty"`  // sequences in a batch
	Mixed    float64 `json:"mixed,omitempty"`    // d: ms for each 1,000 tokens/s of prefill in the same engine
}

// complete fills in the defaults. What is no number, or not positive, is not set.
func (p Policy) complete() Policy {
	if p.Mode == "" {
		p.Mode = Shadow
	}
	within(&p.TTFT, 2*time.Second)
	within(&p.ITL, 50*time.Millisecond)
	within(&p.Startup, 2*time.Minute)
	usual(&p.Headroom, 1.1)
	p.Headroom = min(p.Headroom, 10)
	p.GPUs, p.IdleAfter = max(p.GPUs, 0), max(p.IdleAfter, 0)
	p.Prior = p.Prior.complete(p.ITL.Seconds())
	return p
}

// complete takes what is not set from the reference model. An engine that computes prompts while it decodes stalls
// for u/V of each second: at the objective that stretches a step by ITL/V for each token/s.
func (m Model) complete(itl float64) Model {
	usual(&m.Overhead, .015)
	usual(&m.Rate, 16_000)
	usual(&m.Step, 14)
	usual(&m.Sequence, .05)
	usual(&m.Kilo, .056)
	usual(&m.Mixed, sigma*itl*1e6/m.Rate)
	if m.KVTokens <= 0 || m.KVTokens > 1e12 {
		m.KVTokens = 300_000
	}
	if m.MaxSeqs <= 0 || m.MaxSeqs > 1e6 {
		m.MaxSeqs = 256
	}
	return m
}

func within(d *time.Duration, otherwise time.Duration) {
	if *d <= 0 {
		*d = otherwise
	}
	*d = min(max(*d, time.Millisecond), time.Hour)
}

// usual takes what cannot be for what is not set.
func usual(v *float64, otherwise float64) {
	if !(*v > 1e-6 && *v < 1e9) {
		*v = otherwise
	}
}

// bounds are those of a role, complete.
func (p Policy) bounds(role Role) Bounds {
	b := p.Bounds[role]
	if b.Max <= 0 || b.Max > most {
		b.Max = most
	}
	if b.Min <= 0 {
		b.Min = 1
		if p.IdleAfter > 0 {
			b.Min = 0
		}
	}
	b.Min, b.GPUs = min(b.Min, b.Max), max(b.GPUs, 1)
	return b
}
