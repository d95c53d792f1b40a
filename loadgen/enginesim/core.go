// Package enginesim is a simulated vLLM engine: the scheduler, the block pool, the prefix cache and the KV events of
// vLLM V1, without a model.
//
// Core is the engine itself: pure, without clock, goroutine or I/O, and bit-reproducible. Step computes one forward
// pass and says how long it takes; whoever drives it decides what time that is. Engine drives a Core in real time, and
// speaks OpenAI HTTP, SSE, /metrics and ZeroMQ as vLLM does.
//
// It refuses to guess: answers are hashes and always as long as asked for, tokens come from a toy tokenizer, and step
// times from a formula with fitted constants (Profile). It does not model pipeline or expert parallelism, speculative
// decoding, offloading tiers or hybrid caches. The time that KV takes from a prefill to a decode engine is its driver's.
package enginesim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// Reasons why Submit refuses a request.
var (
	ErrTooLong   = errors.New("enginesim: prompt is longer than the context or the KV cache")
	ErrEmpty     = errors.New("enginesim: prompt or answer of no tokens")
	ErrDuplicate = errors.New("enginesim: a request of this id, or its pinned blocks, is in the engine")
)

// CoreOptions describes an engine. The zero value is an instant engine of 1,024 blocks of 16 tokens.
type CoreOptions struct {
	Profile   Profile
	BlockSize int // tokens per block; 0 = 16
	// Blocks is the number of physical blocks; 0 = as many as Profile.KVTokens fill, or 1,024.
	Blocks      int
	MaxModelLen int // tokens of prompt and answer; 0 = 131,072. Never more than the blocks hold.
	TokenBudget int // tokens computed in one step at most; 0 = 8,192 (vLLM's default on an H100)
	MaxSeqs     int // sequences running at once; 0 = 1,024
	// NoPrefixCache is vLLM's --no-enable-prefix-caching: nothing is hashed, found or announced, and of prompts only the
	// length is read.
	NoPrefixCache bool
	// Interval, from 2, is vLLM's --stream-interval: of a sequence's tokens the first, the last, and in between those of
	// each Interval-th step are in Outputs. Only with NoPrefixCache.
	Interval int
	// Noise is the sigma of a log-normal factor on every step time; 0 = none.
	Noise float64
	Seed  uint64 // of the noise and of the answers
	Hash  Hasher // nil = VLLMHash{SHA256CBOR, "0"}
	// Answer returns a request's generated token at a position; nil = OutputToken of Seed and Request.Answer.
	Answer func(r *Request, position int) uint32
}

// withDefaults fills in what was left zero.
func (o CoreOptions) withDefaults() CoreOptions {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.BlockSize, 16)
	def(&o.Blocks, o.Profile.KVTokens/o.BlockSize)
	def(&o.Blocks, 1024)
	def(&o.MaxModelLen, 131_072)
	o.MaxModelLen = min(o.MaxModelLen, o.Blocks*o.BlockSize)
	def(&o.TokenBudget, 8192)
	def(&o.MaxSeqs, 1024)
	if o.Hash == nil {
		o.Hash = VLLMHash{Algorithm: blockkey.SHA256CBOR, Seed: "0"}
	}
	if seed := o.Seed; o.Answer == nil {
		o.Answer = func(r *Request, position int) uint32 { return OutputToken(seed, r.Answer, position) }
	}
	return o
}

// Core is one engine. It is not safe for concurrent use.
type Core struct {
	o       CoreOptions
	root    []byte
	quick   *QuickHash // o.Hash if it is one: its digests are its hashes
	pool    *pool
	noise   *rand.Rand
	ids     map[string]*sequence
	waiting []*sequence // head first
	running []*sequence // in order of admission
	step    []*sequence // scheduled in this step, in order
	pulling int         // sequences that have blocks and wait for their KV
	pulls   []Pull      // begun in this step
	pinned  map[string][]int32
	events  []kvevent.Event
	cleared bool                 // AllBlocksCleared is due with the next step
	gone    []uint64             // hashes of this step's Removed events
	plain   [][]kvevent.ExtraKey // nils
	retired []*sequence          // ended; events of the last step may still point into them
	spare   []*sequence          // to be used again
	stats   Stats
	glide   glide
}

// Stats are what an engine counts. Counters only grow within one life.
type Stats struct {
	Running, Waiting int // waiting also for KV of a prefill engine
	Blocks, Free     int // physical blocks, and those that no sequence uses (cached or not)
	Cached           int // blocks that may be hit, copies counted
	Pinned           int // blocks of finished requests that are kept for another engine
	Steps            int64
	Queries, Hits    int64 // prompt tokens at first admission, and those found in the cache
	PromptTokens     int64 // of requests whose first token is out
	GeneratedTokens  int64
	Preemptions      int64
	Finished         int64
}

// Usage is the share of blocks in use, as vllm:kv_cache_usage_perc says it: cached blocks that nobody uses are free.
func (s Stats) Usage() float64 { return 1 - float64(s.Free)/float64(max(1, s.Blocks)) }

// StepResult is what one step did. Its slices belong to the core and are valid until the next Step.
type StepResult struct {
	Duration time.Duration // from the step's start until everything below happens
	Load     Load
	Outputs  []Output
	Events   []kvevent.Event // to be published as one batch, if any
	Pulls    []Pull          // KV that is to be fetched from now on; Pulled when it is here
}

// Output is one generated token; Core.Token tells which.
type Output struct {
	Request  *Request
	Index    int  // 0 for the first token
	Hit      int  // prompt tokens that were found in the cache, or came from a prefill engine
	Finished bool // the last token; its blocks are free now
}

// NewCore returns an engine with an empty cache.
func NewCore(o CoreOptions) *Core {
	o = o.withDefaults()
	var quick *QuickHash
	if h, ok := o.Hash.(QuickHash); ok {
		quick = &h
	}
	c := &Core{
		glide: newGlide(&o),
		o:     o,
		quick: quick,
		root:  o.Hash.Root(),
		pool:  newPool(o.Blocks),
		noise: rand.New(rand.NewPCG(o.Seed, 0)),
		ids:   map[string]*sequence{},
	}
	c.pool.counts = o.NoPrefixCache
	return c
}

// Options returns the options in force, defaults filled in.
func (c *Core) Options() CoreOptions { return c.o }

// Submit queues a request behind those that wait. A request that could never be computed is refused (ErrTooLong).
func (c *Core) Submit(r *Request) error {
	if len(r.Prompt) == 0 || r.MaxTokens < 1 {
		return ErrEmpty
	}
	if len(r.Prompt)+1 > c.o.MaxModelLen {
		return fmt.Errorf("%w: %d tokens, at most %d", ErrTooLong, len(r.Prompt), c.o.MaxModelLen-1)
	}
	if c.ids[r.ID] != nil || c.pinned[r.ID] != nil {
		return fmt.Errorf("%w: %s", ErrDuplicate, r.ID)
	}
	s := r.prepared
	if r.by != c {
		s = &sequence{}
		if n := len(c.spare); n > 0 {
			s, c.spare = c.spare[n-1], c.spare[:n-1]
		}
		c.start(s, r)
	}
	r.prepared, r.by = nil, nil
	c.ids[r.ID] = s
	c.waiting = append(c.waiting, s)
	return nil
}

// Prepare hashes the prompt of a request that is about to be submitted, which is most of Submit's work (0.8 us a block
// with VLLMHash). Unlike all other methods it may be called while others run.
func (c *Core) Prepare(r *Request) {
	s := &sequence{}
	c.start(s, r)
	r.prepared, r.by = s, c
}

// Abort forgets a request and frees its blocks, pinned ones too; what it announced stays cached. It returns false for
// an unknown id.
func (c *Core) Abort(id string) bool {
	s := c.ids[id]
	if s == nil {
		return c.Unpin(id)
	}
	if s.pulling {
		c.pulling--
	}
	c.land(s)
	c.end(s)
	same := func(x *sequence) bool { return x == s }
	c.running = slices.DeleteFunc(c.running, same)
	c.waiting = slices.DeleteFunc(c.waiting, same)
	c.glide.fresh = slices.DeleteFunc(c.glide.fresh, same)
	return true
}

// Idle tells whether there is nothing to compute. What waits for its KV is not to be computed yet.
func (c *Core) Idle() bool { return len(c.waiting)+len(c.running) == 0 }

// Reset empties the prefix cache; it refuses, as vLLM does, while a block is in use. As in vLLM the event that tells
// of it goes out with the next step.
func (c *Core) Reset() bool {
	if !c.pool.reset() {
		return false
	}
	c.cleared = true
	return true
}

// Cached returns the number of physical copies by engine hash: the truth that the events describe.
func (c *Core) Cached() map[uint64]int { return c.pool.copies() }

// Stats returns the present figures.
func (c *Core) Stats() Stats {
	s := c.stats
	s.Running, s.Waiting = len(c.running), len(c.waiting)+c.pulling
	s.Blocks, s.Free, s.Cached = c.pool.size(), c.pool.free, c.pool.mapped
	return s
}

// Step computes one forward pass of all that can run, into r, and returns false if nothing can: the engine is idle, or
// its blocks are pinned or wait for their KV, so that Unpin or Pulled comes first. Everything in r happens at the end
// of the step; requests submitted meanwhile take part in the next one. A step that only begins pulls takes no time.
func (c *Core) Step(r *StepResult) bool {
	c.spare = append(c.spare, c.retired...)
	c.retired, c.events, c.gone = c.retired[:0], c.events[:0], c.gone[:0]
	c.pulls = c.pulls[:0]
	*r = StepResult{Outputs: r.Outputs[:0]}
	if c.Idle() {
		return false
	}
	if c.cleared {
		c.events = append(c.events, kvevent.Event{Kind: kvevent.Cleared})
		c.cleared = false
	}
	r.Load = c.schedule()
	if len(c.step)+c.glide.n > 0 {
		r.Duration = c.duration(r.Load)
		c.update(r)
		c.stats.Steps++
	}
	r.Events, r.Pulls = c.events, c.pulls
	return r.Load != (Load{}) || len(c.events)+len(c.pulls) > 0
}

func (c *Core) duration(l Load) time.Duration {
	t := c.o.Profile.StepTime(l)
	if c.o.Noise > 0 {
		t = time.Duration(float64(t) * math.Exp(c.o.Noise*c.noise.NormFloat64()))
	}
	return t
}

// update is the end of a step: tokens are computed, and those that reach their end generate one.
func (c *Core) update(r *StepResult) {
	ended, told := false, 0
	if c.glide.on {
		ended = c.glided(r)
		told = len(r.Outputs)
	}
	for _, s := range c.step {
		s.done += s.n
		if s.done < s.length {
			continue
		}
		if s.output == 0 {
			c.stats.PromptTokens += int64(s.length)
		}
		s.decodes = true
		s.length++
		s.output++
		o := Output{Request: s.req, Index: s.output - 1, Hit: s.hit, Finished: s.output >= s.most}
		r.Outputs = append(r.Outputs, o)
		if o.Finished {
			if s.req.Pin {
				c.pin(s)
			}
			c.end(s)
			c.stats.Finished++
			ended = true
		}
	}
	c.stats.GeneratedTokens += int64(len(r.Outputs) - told)
	if ended {
		c.running = slices.DeleteFunc(c.running, func(s *sequence) bool { return s.gone })
	}
	if c.glide.on {
		c.settle()
	}
}

// Token returns token number i of the answer to r, from 0. It may be called at any time, and while other methods run
// if CoreOptions.Answer may.
func (c *Core) Token(r *Request, i int) uint32 { return c.o.Answer(r, i) }

// end frees what a sequence holds. The caller takes it out of the queues.
func (c *Core) end(s *sequence) {
	c.pool.release(s.blocks)
	s.blocks = s.blocks[:0]
	s.gone = true
	delete(c.ids, s.req.ID)
	c.retired = append(c.retired, s)
}
