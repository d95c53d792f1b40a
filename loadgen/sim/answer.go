package sim

import "time"

// Answer is what became of one request, for comparisons request by request.
type Answer struct {
	Request             int // requests are numbered from 0 as they are sent: those of one open stage by time
	Engine              int // that answered it, in the order in which policies see engines
	Prompt, Hit, Output int // tokens; Hit of the prompt were in the prefix cache
	Promised            int // tokens of the prompt that the router took to be cached when it chose
	Refused             bool
	TTFT                time.Duration // front end included; 0 where it was refused
	TPOT                time.Duration // mean time between two tokens; 0 of fewer than two
}

// answer tells of a call that has ended.
func (c *call) answer(frontEnd time.Duration, refused bool) Answer {
	a := Answer{Request: int(c.request.Answer), Engine: c.booked.engine, Prompt: c.prompt, Hit: c.hit, Output: c.output, Refused: refused}
	if c.booked.held != nil {
		a.Promised = c.booked.held.Cached
	}
	if !refused {
		a.TTFT = c.first - c.sent + frontEnd
	}
	if c.output > 1 {
		a.TPOT = (c.last - c.first) / time.Duration(c.output-1)
	}
	return a
}
