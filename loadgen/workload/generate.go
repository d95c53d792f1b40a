package workload

import (
	"math"
	"math/rand/v2"
	"time"
)

// What the generator is fitted to: the conversation trace of Mooncake (FAST '25 release, Apache-2.0), 12,031 requests
// in 3,537 s. Arrivals stand on a grid of 3 s; every prompt begins with the same block; about 61 % of requests begin a
// conversation, others go on from an earlier prompt, most of them by appending to it. The tails of the two input
// distributions are a little below the measured ones, so that lengths after all turns come out right.
const (
	publishedRate = 3.40 // requests a second
	arrivalGrid   = 3 * time.Second
	warmUp        = time.Hour // conversations that began so long before the trace may go on in it
	branchShare   = 0.15      // follow-ups that keep only a part of the earlier prompt
	longestPrompt = 126_195
	gapMedian     = 123 * time.Second // between a prompt and its follow-up; log-normal
	gapSigma      = 1.07
)

// continues has the share of conversations that go on after their first turn, their second, and so on; the last
// value holds for all later ones.
var continues = []float64{.33, .43, .52, .60}

// quantiles is a distribution as (probability, value) points, log-linear between them.
type quantiles [][2]float64

var (
	firstInput  = quantiles{{0, 891}, {.1, 905}, {.25, 1336}, {.5, 5264}, {.75, 13056}, {.9, 24000}, {.99, 80000}, {1, longestPrompt}}
	growth      = quantiles{{0, 8}, {.25, 187}, {.5, 454}, {.75, 900}, {.9, 3200}, {.99, 14000}, {1, 50000}}
	outputs     = quantiles{{0, 1}, {.01, 3}, {.05, 10}, {.1, 24}, {.25, 156}, {.5, 350}, {.75, 472}, {.9, 597}, {.99, 1118}, {1, 2000}}
	sharedBlock = uint64(0) // id of the block that all prompts begin with
)

func (q quantiles) draw(rng *rand.Rand) int {
	p := rng.Float64()
	i := 1
	for p > q[i][0] {
		i++
	}
	low, high := q[i-1], q[i]
	return int(low[1] * math.Pow(high[1]/low[1], (p-low[0])/(high[0]-low[0])))
}

// Generate returns a stand-in for the conversation trace: length's arrivals drawn from seed, with the rate, lengths,
// shared first block, share of cacheable blocks and times between turns of the published one. Statistics of an hour
// land within the tolerances that the tests state; those of some minutes scatter more.
func Generate(length time.Duration, seed uint64) Trace {
	g := generator{rng: rand.New(rand.NewPCG(seed, 0x63686174)), length: length, next: sharedBlock + 1}
	turns, going := 1.0, 1.0
	for i := range 100 {
		going *= continues[min(i, len(continues)-1)]
		turns += going
	}
	perSecond := publishedRate / turns
	at := -warmUp
	for {
		at += time.Duration(g.rng.ExpFloat64() / perSecond * float64(time.Second))
		if at >= length {
			break
		}
		g.conversation(at)
	}
	g.trace.Name = Generated
	g.trace.sort()
	return g.trace
}

type generator struct {
	rng    *rand.Rand
	length time.Duration
	next   uint64 // block id not yet used
	trace  Trace
}

// conversation adds a conversation's requests from its first one at start.
func (g *generator) conversation(start time.Duration) {
	r := g.grow(Request{At: start, Blocks: []uint64{sharedBlock}, Input: BlockTokens}, firstInput.draw(g.rng))
	for turn := 0; ; turn++ {
		if r.At >= 0 {
			on := r
			on.At = r.At.Truncate(arrivalGrid)
			g.trace.Requests = append(g.trace.Requests, on)
		}
		if g.rng.Float64() >= continues[min(turn, len(continues)-1)] {
			return
		}
		gap := math.Exp(g.rng.NormFloat64()*gapSigma) * float64(gapMedian)
		if r.At += time.Duration(gap); r.At >= g.length {
			return
		}
		keep := r.Input / BlockTokens
		if g.rng.Float64() < branchShare {
			keep = 1 + int(g.rng.Float64()*float64(keep))
		}
		longer := max(keep*BlockTokens, r.Input) + growth.draw(g.rng)
		r.Blocks = r.Blocks[:max(1, min(keep, len(r.Blocks)))]
		r = g.grow(r, min(longer, longestPrompt))
	}
}

// grow returns r with a prompt of input tokens that begins with r's blocks and goes on with new ones.
func (g *generator) grow(r Request, input int) Request {
	blocks := make([]uint64, 0, (input+BlockTokens-1)/BlockTokens)
	blocks = append(blocks, r.Blocks...)
	for len(blocks) < cap(blocks) {
		blocks = append(blocks, g.next)
		g.next++
	}
	return Request{At: r.At, Input: input, Output: outputs.draw(g.rng), Blocks: blocks}
}
