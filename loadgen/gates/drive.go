package gates

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// arrival is a request and when it comes.
type arrival struct {
	at time.Duration
	r  *enginesim.Request
}

// drive runs an engine in virtual time over arrivals in order, calls each after every step with its start and end, and
// returns when the last one ended.
func drive(c *enginesim.Core, arrivals []arrival, each func(begin, end time.Duration, r *enginesim.StepResult)) (time.Duration, error) {
	var now time.Duration
	var r enginesim.StepResult
	for {
		for len(arrivals) > 0 && arrivals[0].at <= now {
			if err := c.Submit(arrivals[0].r); err != nil {
				return now, err
			}
			arrivals = arrivals[1:]
		}
		if !c.Step(&r) {
			if len(arrivals) == 0 {
				return now, nil
			}
			now = arrivals[0].at
			continue
		}
		begin := now
		now += r.Duration
		if each != nil {
			each(begin, now, &r)
		}
	}
}

// slow is an engine on which a few requests are a load.
var slow = enginesim.Profile{Name: "slow", Base: 10, Prefill: 0.05, Decode: 0.08, Context: 0.05, Pairs: 2}

// mixed returns n requests that share prefixes of each other, of block-sized and odd lengths, in bursts. With keys some
// are of an adapter, and some have a salt.
func mixed(seed uint64, n int, keys bool) []arrival {
	rng := rand.New(rand.NewPCG(seed, 1))
	var all []arrival
	at := time.Duration(0)
	for i := range n {
		if rng.IntN(3) > 0 {
			at += time.Duration(rng.IntN(60)) * time.Millisecond
		}
		family, length := rng.IntN(5), 1+rng.IntN(400)
		if rng.IntN(4) == 0 {
			length = 16 * (1 + rng.IntN(20))
		}
		r := &enginesim.Request{ID: fmt.Sprint(i), MaxTokens: 1 + rng.IntN(60), Answer: uint64(family), Prompt: counted(1000*family, length)}
		switch special := rng.IntN(8); {
		case keys && special == 0:
			r.LoRA, r.LoRAID = "adapter", 1
		case keys && special == 1:
			r.Salt = "tenant"
		}
		all = append(all, arrival{at, r})
	}
	return all
}

// counted is n tokens that count from first.
func counted(first, n int) []uint32 {
	p := make([]uint32, n)
	for i := range p {
		p[i] = uint32(first + i)
	}
	return p
}

// loop is a closed loop of clients, each of which sends its next request when it has the answer to the last one.
type loop struct {
	clients, input, output int
	jitter                 float64       // lengths are drawn from so large a share around theirs
	staggered              bool          // clients begin in the middle of an answer
	rounds                 int           // answers of each client that are measured
	frontEnd               time.Duration // from sending a request until the scheduler has it
	cold                   bool          // the first answers are measured too; else two of each client are not
	engine                 enginesim.CoreOptions
}

// loopResult is what was measured of a loop.
type loopResult struct {
	ttft, tpot  float64 // means over answers, seconds
	running     float64 // sequences in a step, mean over time
	most        int     // of them
	outputTokS  float64
	preemptions int64
}

// run makes the experiment: prompts share nothing, and the first request is alone when it comes.
func (l loop) run() (loopResult, error) {
	x := looping{loop: l, c: enginesim.NewCore(l.engine), rng: rand.New(rand.NewPCG(l.engine.Seed, 6)), times: map[*enginesim.Request]*span{}}
	for i := range l.clients {
		x.send(time.Duration(i), x.begin())
	}
	var r enginesim.StepResult
	for x.measured < l.rounds*l.clients && x.err == nil {
		for len(x.coming) > 0 && x.coming[0].at <= x.now {
			x.err = errors.Join(x.err, x.c.Submit(x.coming[0].r))
			x.coming = x.coming[1:]
		}
		switch {
		case x.c.Step(&r):
			x.stepped(&r)
		case len(x.coming) > 0:
			x.now = x.coming[0].at
		default:
			return loopResult{}, fmt.Errorf("%w: %d clients have nothing to do", errTame, l.clients)
		}
	}
	return x.result(), x.err
}

// looping is a loop under way.
type looping struct {
	loop
	c     *enginesim.Core
	rng   *rand.Rand
	now   time.Duration
	times map[*enginesim.Request]*span
	err   error

	coming []arrival // sent, and not yet with the scheduler

	sent, finished, measured int
	began                    time.Duration // of what is measured
	ttft, tpot               float64
	area                     float64 // sequences times seconds
	tokens, most             int
}

// span is when a request came and when its first token did.
type span struct{ sent, first time.Duration }

func (x *looping) draw(n int) int {
	return max(1, int(float64(n)*(1+x.jitter*(2*x.rng.Float64()-1))+.5))
}

// begin is the length of a client's first answer.
func (x *looping) begin() int {
	if x.staggered {
		return 1 + x.rng.IntN(x.output)
	}
	return x.draw(x.output)
}

// send sends a client's next request a little later than now.
func (x *looping) send(later time.Duration, output int) {
	x.sent++
	r := &enginesim.Request{ID: fmt.Sprint(x.sent), Prompt: counted(x.sent<<15, x.draw(x.input)), MaxTokens: output, Answer: uint64(x.sent)}
	at := x.now + later
	x.times[r] = &span{sent: at}
	x.coming = append(x.coming, arrival{at + x.frontEnd, r})
}

func (x *looping) stepped(r *enginesim.StepResult) {
	x.now += r.Duration
	warm := x.warm()
	running := x.c.Stats().Running
	ended := 0
	for _, o := range r.Outputs {
		s := x.times[o.Request]
		if o.Index == 0 {
			s.first = x.now
		}
		if o.Finished {
			ended++
			x.ended(s, &o)
			delete(x.times, o.Request)
		}
	}
	if !warm {
		x.began = x.now
		return
	}
	x.area += float64(running+ended) * r.Duration.Seconds()
	x.most = max(x.most, running+ended)
	x.tokens += len(r.Outputs)
}

// warm tells whether what happens now is measured.
func (x *looping) warm() bool { return x.cold || x.finished >= 2*x.clients }

func (x *looping) ended(s *span, o *enginesim.Output) {
	if x.warm() {
		x.measured++
		x.ttft += (s.first - s.sent).Seconds()
		x.tpot += (x.now - s.first).Seconds() / float64(max(1, o.Index))
	}
	x.finished++
	x.send(0, x.draw(x.output))
}

func (x *looping) result() loopResult {
	n, lasted := float64(max(1, x.measured)), (x.now - x.began).Seconds()
	return loopResult{
		ttft: x.ttft / n, tpot: x.tpot / n, running: x.area / lasted, most: x.most,
		outputTokS: float64(x.tokens) / lasted, preemptions: x.c.Stats().Preemptions,
	}
}
