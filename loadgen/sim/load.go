package sim

import (
	"math"
	"slices"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// Segment is a run of prompt tokens that an id stands for.
type Segment struct {
	ID     uint64
	Tokens int
}

// Prompt is a prompt as segments. Prompts that begin with equal segments begin with equal tokens.
type Prompt []Segment

// Len is the prompt's length in tokens.
func (p Prompt) Len() (n int) {
	for _, s := range p {
		n += s.Tokens
	}
	return n
}

// Append appends the prompt's tokens: the same ones that workload.Tokens makes of the same ids.
func (p Prompt) Append(dst []uint32) []uint32 {
	for _, s := range p {
		dst = workload.Tokens{}.Run(dst, s.ID, s.Tokens)
	}
	return dst
}

// Turn is one request of a session.
type Turn struct {
	Gap    time.Duration // since the end of the turn before; of the first one, since the session's start
	Prompt Prompt
	Output int // tokens that it generates
}

// Session is turns that follow one another: a single request, or a conversation whose next turn waits for the answer.
type Session struct {
	At     time.Duration // since its stage began; only where the stage is open
	Turns  []Turn
	Tenant int // whose it is
}

// Stage is a part of a workload. The next one begins when the last request of this one is answered.
type Stage struct {
	Sessions []Session
	// Concurrency closes the stage: so many sessions run at once, and each that ends begins the next. 0 is an open
	// stage: sessions begin at their times.
	Concurrency int
	WarmUp      bool // fills caches; its throughput does not count
}

// Workload is what clients send, whatever the fleet does.
type Workload struct {
	Name   string
	Stages []Stage
	// InFlight bounds the requests that the client has under way; what comes above it waits in the client, unmeasured,
	// as that of inference-perf does. 0 is without bound.
	InFlight int

	prompts *prompts // nil until several runs are to share them
}

// Requests counts the turns of all stages.
func (w *Workload) Requests() (n int) {
	for _, stage := range w.Stages {
		for _, s := range stage.Sessions {
			n += len(s.Turns)
		}
	}
	return n
}

// Length is the time over which requests arrive if no stage is late.
func (w *Workload) Length() (length time.Duration) {
	for _, stage := range w.Stages {
		last := time.Duration(0)
		for _, s := range stage.Sessions {
			last = max(last, s.At)
		}
		length += last
	}
	return length
}

// Part returns the workload with only the first share of each stage's sessions: a trial of how long the whole takes.
func (w *Workload) Part(share float64) Workload {
	part := *w
	part.Stages = slices.Clone(w.Stages)
	for i := range part.Stages {
		s := &part.Stages[i]
		s.Sessions = s.Sessions[:int(math.Ceil(share*float64(len(s.Sessions))))]
	}
	return part
}

// one is a session of one request.
func one(at time.Duration, p Prompt, output int) Session {
	return Session{At: at, Turns: []Turn{{Prompt: p, Output: output}}}
}

// FromTrace makes a workload of a trace's requests, speed times as fast.
func FromTrace(t workload.Trace, speed float64) Workload {
	stage := Stage{Sessions: make([]Session, 0, len(t.Requests))}
	for _, r := range t.Requests {
		left := r.Input
		p := make(Prompt, 0, len(r.Blocks))
		for _, id := range r.Blocks {
			n := min(left, workload.BlockTokens)
			p = append(p, Segment{ID: id, Tokens: n})
			left -= n
		}
		stage.Sessions = append(stage.Sessions, one(time.Duration(float64(r.At)/speed), p, r.Output))
	}
	return Workload{Name: t.Name, Stages: []Stage{stage}}
}
