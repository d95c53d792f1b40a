package gates

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// work is gate 2.1.4: nothing waits that could run, and Little's law.
func work(rounds int) ([]Row, error) {
	idle := 0
	for seed := range uint64(4 * rounds) {
		n, err := waitsInVain(seed)
		if err != nil {
			return nil, err
		}
		idle += n
	}
	running, law, err := little(3000 * rounds)
	if err != nil {
		return nil, err
	}
	return []Row{
		none("steps that compute nothing, or after which the first in the queue waits though it fits", idle),
		near("mean running sequences against completion rate times time in service", law, running, .01),
	}, nil
}

// waitsInVain counts the steps of a run that leave something waiting for no reason. It knows the queue from outside:
// those running and those waiting are, together and in this order, all that are under way in order of arrival.
func waitsInVain(seed uint64) (idle int, err error) {
	o := enginesim.CoreOptions{Profile: slow, Blocks: 90, MaxModelLen: 600, TokenBudget: 200, MaxSeqs: 7, Seed: seed}
	c := enginesim.NewCore(o)
	arrivals := alone(seed, 400)
	var underWay []*enginesim.Request
	length := map[*enginesim.Request]int{}
	why := map[string]int{}
	preempted := int64(0)
	came := arrivals
	_, err = drive(c, arrivals, func(begin, _ time.Duration, r *enginesim.StepResult) {
		for len(came) > 0 && came[0].at <= begin {
			underWay = append(underWay, came[0].r)
			length[came[0].r] = len(came[0].r.Prompt)
			came = came[1:]
		}
		s := c.Stats()
		computed, ended, free := r.Load.PrefillTokens+r.Load.Decodes, 0, s.Free
		for _, out := range r.Outputs {
			if out.Finished {
				ended++
				free -= (length[out.Request] + 15) / 16 // were not free when the step was made
			}
		}
		running := s.Running + ended
		left := o.TokenBudget - computed
		switch {
		case computed == 0:
			idle++
		case running == len(underWay):
		case left == 0:
			why["budget"]++
		case running == o.MaxSeqs:
			why["seats"]++
		case s.Preemptions > preempted:
			why["preemption"]++
		case (length[underWay[running]]+15)/16 <= free:
			idle++
		default:
			why["blocks"]++
		}
		preempted = s.Preemptions
		underWay = told(r, underWay, length)
	})
	if err == nil && len(why) < 4 {
		err = fmt.Errorf("%w: things waited for %v", errTame, why)
	}
	return idle, err
}

// told takes what a step computed into account: generated tokens lengthen a sequence, ended ones leave.
func told(r *enginesim.StepResult, underWay []*enginesim.Request, length map[*enginesim.Request]int) []*enginesim.Request {
	ended := map[*enginesim.Request]bool{}
	for _, out := range r.Outputs {
		length[out.Request]++
		if out.Finished {
			ended[out.Request] = true
			delete(length, out.Request)
		}
	}
	kept := underWay[:0]
	for _, q := range underWay {
		if !ended[q] {
			kept = append(kept, q)
		}
	}
	return kept
}

// alone returns n requests in bursts that share nothing.
func alone(seed uint64, n int) []arrival {
	all := mixed(seed, n, false)
	for i := range all {
		all[i].r.Prompt, all[i].r.Answer = counted(i<<10, len(all[i].r.Prompt)), uint64(i)
	}
	return all
}

// little returns the mean number of running sequences, and what Little's law makes of their times in service.
func little(requests int) (running, law float64, err error) {
	c := enginesim.NewCore(enginesim.CoreOptions{Profile: enginesim.Qwen3_32B_TP2_H100, Hash: enginesim.QuickHash{}, MaxSeqs: 40, Seed: 5})
	rng := rand.New(rand.NewPCG(5, 5))
	var arrivals []arrival
	at := time.Duration(0)
	for i := range requests {
		at += time.Duration(rng.ExpFloat64() * 0.2 * float64(time.Second))
		prompt := counted(i<<12, 200+rng.IntN(2000))
		arrivals = append(arrivals, arrival{at, &enginesim.Request{ID: fmt.Sprint(i), MaxTokens: 50 + rng.IntN(300), Prompt: prompt}})
	}
	var area, inService float64
	admitted, finished, queued := 0, 0, 0
	began := map[*enginesim.Request]time.Duration{}
	end, err := drive(c, arrivals, func(begin, end time.Duration, r *enginesim.StepResult) {
		s := c.Stats()
		ended := 0
		for _, o := range r.Outputs {
			ended += count(o.Finished)
		}
		area += float64(s.Running+ended) * (end - begin).Seconds()
		// Without preemption sequences are admitted in the order in which they come.
		for ; admitted < finished+s.Running+ended; admitted++ {
			began[arrivals[admitted].r] = begin
		}
		for _, o := range r.Outputs {
			if o.Finished {
				inService += (end - began[o.Request]).Seconds()
			}
		}
		finished += ended
		queued = max(queued, s.Waiting)
	})
	running, law = area/end.Seconds(), float64(finished)/end.Seconds()*inService/float64(max(1, finished))
	if err == nil && (finished != requests || queued < 5 || running < 5 || c.Stats().Preemptions > 0) {
		err = fmt.Errorf("%w: %d finished, at most %d queued, %.1f running", errTame, finished, queued, running)
	}
	return running, law, err
}

// queue is gate 2.1.5: with one seat and answers of one token an engine is an M/D/1 queue.
func queue(rounds int) (rows []Row, err error) {
	const input = 16
	p := enginesim.Profile{Name: "slow", Base: 10, Prefill: 0.5, Pairs: 100}
	service := time.Duration((p.Base + p.Prefill*input + p.Pairs*input*input/2e6) * 1e6)
	for _, load := range []float64{.3, .6, .9} {
		var waited float64
		late, n := 0, 0
		for round := range rounds {
			c := enginesim.NewCore(enginesim.CoreOptions{Profile: p, MaxSeqs: 1, Blocks: 64, Hash: enginesim.QuickHash{}})
			arrivals := poisson(200_000, uint64(load*10)+uint64(round)<<8, float64(service)/load, input)
			var free time.Duration // when the engine is, by Lindley's recursion
			_, err := drive(c, arrivals, func(begin, end time.Duration, r *enginesim.StepResult) {
				came := r.Outputs[0].Request.Tag.(time.Duration)
				late += count(begin != max(free, came) || end-begin != service)
				free = max(free, came) + service
				waited += (begin - came).Seconds()
				n++
			})
			if err != nil {
				return nil, err
			}
		}
		want := load * service.Seconds() / (2 * (1 - load))
		rows = append(rows, near(fmt.Sprintf("mean wait at load %.1f, s", load), want, waited/float64(max(1, n)), .02),
			none(fmt.Sprintf("requests at load %.1f that do not begin when Lindley's recursion says", load), late))
	}
	return rows, nil
}

func poisson(n int, seed uint64, mean float64, input int) []arrival {
	rng := rand.New(rand.NewPCG(3, seed))
	var at time.Duration
	all := make([]arrival, n)
	prompts := counted(0, n*input)
	for i := range all {
		at += time.Duration(rng.ExpFloat64() * mean)
		all[i] = arrival{at, &enginesim.Request{ID: fmt.Sprint(i), Prompt: prompts[i*input : (i+1)*input], MaxTokens: 1, Tag: at}}
	}
	return all
}

// tokenTime is the mean time of an output token, in seconds, in a closed loop of n clients by the profile's formula.
func tokenTime(p enginesim.Profile, n, input, output float64) float64 {
	return (p.Base + p.Prefill*n*input/output + p.Decode*n + p.Context*n*(input+output/2)/1000 + p.Pairs*n*input*input/(2e6*output)) / 1000
}

// closedLoop is gate 2.1.6: TPOT in a closed loop that fits the KV cache.
func closedLoop(rounds int) (rows []Row, err error) {
	p := enginesim.Qwen3_32B_TP2_H100
	for _, l := range []loop{
		{clients: 8, input: 1024, output: 1024}, {clients: 32, input: 1024, output: 256}, {clients: 32, input: 4096, output: 512},
		{clients: 128, input: 512, output: 256}, {clients: 128, input: 1024, output: 512},
	} {
		l.jitter, l.staggered, l.rounds = .02, true, 10*rounds
		l.engine = enginesim.CoreOptions{Profile: p, Hash: enginesim.QuickHash{}, Seed: 6}
		if float64(l.clients*(l.input+l.output)) > .8*float64(p.KVTokens) {
			return rows, errTame
		}
		got, err := l.run()
		if err != nil {
			return rows, err
		}
		want := tokenTime(p, float64(l.clients), float64(l.input), float64(l.output))
		rows = append(rows, near(fmt.Sprintf("TPOT of %d clients, %d in, %d out, s", l.clients, l.input, l.output), want, got.tpot, .03))
	}
	return rows, nil
}

// bound is gate 2.1.9: what runs at once when the KV cache is the limit, and its throughput.
func bound(rounds int) (rows []Row, err error) {
	p := enginesim.Qwen3_32B_TP2_H100
	exact := loop{clients: 360, input: 1025, output: 255, engine: enginesim.CoreOptions{BlockSize: 256}}
	growing := loop{clients: 220, input: 2000, output: 80}
	for _, l := range []loop{exact, growing} {
		l.staggered, l.rounds, l.engine.Profile, l.engine.Hash = true, 10*rounds, p, enginesim.QuickHash{}
		got, err := l.run()
		if err != nil {
			return rows, err
		}
		size := max(16, l.engine.BlockSize)
		fit := float64(p.KVTokens / size / ((l.input + l.output + size - 1) / size))
		if l.engine.BlockSize > 0 { // the answer fits the prompt's last block: nothing grows, nothing is preempted
			rows = append(rows, near("most sequences running, of answers that need no block of their own", fit, float64(got.most), 0),
				none("preemptions then", int(got.preemptions)))
		} else {
			// Admission does not reserve an answer's blocks: what it lets in too much is preempted later.
			rows = append(rows, near("mean sequences running, of answers that grow by 5 blocks of 130", fit, got.running, .04))
		}
		want := got.running / tokenTime(p, got.running, float64(l.input), float64(l.output))
		name := fmt.Sprintf("output tok/s with %d in, %d out against running/step", l.input, l.output)
		rows = append(rows, near(name, want, got.outputTokS, .03))
	}
	return rows, nil
}

// chunks is gate 2.1.10: a long prompt is computed in chunks of the budget, and holds up those that decode.
func chunks() ([]Row, error) {
	p := enginesim.Qwen3_32B_TP2_H100
	var want time.Duration
	for i := range 4 {
		ctx := float64(i * 8192)
		want += time.Duration((p.Base + p.Prefill*8192 + p.Pairs*8192*(ctx+4096)/1e6) * 1e6)
	}
	long := func() *enginesim.Request {
		return &enginesim.Request{ID: "long", Prompt: counted(0, 4*8192), MaxTokens: 1}
	}
	got, err := drive(enginesim.NewCore(enginesim.CoreOptions{Profile: p, Hash: enginesim.QuickHash{}}), []arrival{{0, long()}}, nil)
	if err != nil {
		return nil, err
	}
	var arrivals []arrival
	for i := range 100 {
		arrivals = append(arrivals, arrival{0, &enginesim.Request{ID: fmt.Sprint(i), Prompt: counted((1000+i)<<12, 16), MaxTokens: 60}})
	}
	arrivals = append(arrivals, arrival{300 * time.Millisecond, long()})
	longest, over := time.Duration(0), 0
	last := map[*enginesim.Request]time.Duration{}
	c := enginesim.NewCore(enginesim.CoreOptions{Profile: p, Hash: enginesim.QuickHash{}})
	_, err = drive(c, arrivals, func(_, end time.Duration, r *enginesim.StepResult) {
		over += count(r.Load.PrefillTokens+r.Load.Decodes > 8192)
		for _, o := range r.Outputs {
			if before, ok := last[o.Request]; ok {
				longest = max(longest, end-before)
			}
			last[o.Request] = end
		}
	})
	least := p.StepTime(enginesim.Load{PrefillTokens: 8092, Decodes: 100, TokenPairs: 8092 * 4046})
	return []Row{
		near("TTFT of 32,768 tokens alone, s", want.Seconds(), got.Seconds(), 0),
		none("steps of more tokens than the budget", over),
		holds("the longest gap of 100 decodes is at least a chunk's beside them", longest >= least,
			"%.4f s, a chunk takes %.4f s", longest.Seconds(), least.Seconds()),
	}, err
}
