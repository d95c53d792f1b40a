package plane

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
	"github.com/warmpath/warmpath/loadgen/enginesim"
)

const (
	blockSize = 16
	model     = "warmpath/plane"

	// The work of an engine: so many sequences at once, prompts of 20 to 60 blocks, half of which begin with one of 16
	// prefixes that all engines see, and answers of 16 to 304 tokens, which grow by a block every 16 tokens.
	leastPrompt, mostPrompt = 20, 60
	leastAnswer, mostAnswer = 16, 304
	prefixes, prefixBlocks  = 16, 10
	vocabulary              = 151_936 // Qwen3's
)

// engine is the simulator's engine core, which is vLLM's scheduler and block pool, behind a real publisher. Its steps
// are not timed by a model's speed but by the rate at which blocks are to be stored and removed. Not safe for
// concurrent use.
type engine struct {
	id      string
	core    *enginesim.Core
	wire    *kvwire.Publisher
	random  *rand.Rand
	running int // sequences at once
	busy    int
	asked   uint64
	result  enginesim.StepResult

	root   uint64          // of all chains
	links  map[uint64]link // by engine hash: all that is cached, and more
	newest uint64          // engine hash of the block stored last

	replays  bool    // it publishes what was recorded, and nothing else
	recorded []batch // computed and not yet published
	sent     total
}

// link is a block's key, computed from its tokens, and the block before it.
type link struct {
	key, parent uint64
	first       bool // there is none before it
}

// batch is what one step publishes.
type batch struct {
	payload []byte
	ops     int // blocks stored and removed
}

// total is what engines published.
type total struct {
	Ops, Batches int
	Bytes        int // of payloads and sequence numbers
}

func (t *total) add(o total) {
	t.Ops, t.Batches, t.Bytes = t.Ops+o.Ops, t.Batches+o.Batches, t.Bytes+o.Bytes
}

func newEngine(id string, wire *kvwire.Publisher, scope blockkey.Scope, blocks, running int, seed uint64) *engine {
	return &engine{
		id: id, wire: wire, running: running, random: rand.New(rand.NewPCG(seed, 1)), root: scope.Root(),
		core:  enginesim.NewCore(enginesim.CoreOptions{BlockSize: blockSize, Blocks: blocks, Seed: seed, Hash: enginesim.QuickHash{Seed: seed}}),
		links: make(map[uint64]link, blocks),
	}
}

// next computes until there is something to publish.
func (e *engine) next() batch {
	for {
		for ; e.busy < e.running; e.busy++ {
			e.asked++
			// Refused is only what does not fit into the engine at all.
			_ = e.core.Submit(&enginesim.Request{ID: strconv.FormatUint(e.asked, 10), Prompt: e.prompt(),
				MaxTokens: leastAnswer + e.random.IntN(mostAnswer-leastAnswer+1), Answer: e.asked})
		}
		e.core.Step(&e.result)
		for i := range e.result.Outputs {
			if e.result.Outputs[i].Finished {
				e.busy--
			}
		}
		if len(e.result.Events) > 0 {
			return e.encode(e.result.Events)
		}
	}
}

func (e *engine) prompt() []uint32 {
	tokens := make([]uint32, blockSize*(leastPrompt+e.random.IntN(mostPrompt-leastPrompt+1)))
	own := 0
	if e.random.IntN(2) == 0 {
		own = blockSize * prefixBlocks
		fillTokens(tokens[:own], rand.New(rand.NewPCG(uint64(e.random.IntN(prefixes)), 0)))
	}
	fillTokens(tokens[own:], e.random)
	return tokens
}

func fillTokens(tokens []uint32, random *rand.Rand) {
	for i := range tokens {
		tokens[i] = random.Uint32N(vocabulary)
	}
}

// encode makes a batch of events, without its time, and notes what they say.
func (e *engine) encode(events []kvevent.Event) batch {
	b := batch{payload: kvevent.Append(nil, &kvevent.Batch{HasRank: true, Events: events}, kvevent.MapForm)}
	for i := range events {
		ev := &events[i]
		b.ops += len(ev.Hashes)
		if ev.Kind == kvevent.Stored {
			e.learn(ev)
		}
	}
	if len(e.links) > 2*e.core.Options().Blocks {
		e.forget()
	}
	return b
}

// learn computes the keys of stored blocks from their tokens.
func (e *engine) learn(ev *kvevent.Event) {
	l := link{key: e.root, parent: ev.Parent, first: !ev.HasParent}
	if ev.HasParent {
		l.key = e.links[ev.Parent].key
	}
	for i, hash := range ev.Hashes {
		l.key = blockkey.Extend(l.key, ev.Tokens[i*blockSize:][:blockSize])
		e.links[hash] = l
		l.parent, l.first = hash, false
	}
	e.newest = ev.Hashes[len(ev.Hashes)-1]
}

// forget drops the links of blocks that are not cached: they come back with their tokens if ever.
func (e *engine) forget() {
	cached := e.core.Cached()
	for hash := range e.links {
		if cached[hash] == 0 {
			delete(e.links, hash)
		}
	}
}

// timeAt is where a payload holds its time: behind the headers of the array and of the number.
const timeAt = 2

// publish sends a batch with the present time and returns how many operations it has.
func (e *engine) publish(b batch) (ops int) {
	binary.BigEndian.PutUint64(b.payload[timeAt:], math.Float64bits(float64(time.Now().UnixNano())/1e9))
	e.wire.Publish(b.payload)
	e.sent.add(total{Ops: b.ops, Batches: 1, Bytes: len(b.payload) + 8})
	return b.ops
}

// fill publishes until the cache has been full for a while.
func (e *engine) fill() {
	for blocks := e.core.Options().Blocks; e.core.Stats().Cached < blocks*9/10 || e.sent.Ops < blocks*5/4; {
		e.publish(e.next())
	}
}

// record computes this many operations ahead.
func (e *engine) record(ops int) {
	for e.replays = true; ops > 0; {
		b := e.next()
		e.recorded = append(e.recorded, b)
		ops -= b.ops
	}
}

// play publishes from begin on so many operations a second, each batch at its time, until end. An engine that
// replays ends when nothing recorded is left.
func (e *engine) play(begin, end time.Time, opsPerSecond float64) {
	timer := time.NewTimer(time.Until(begin))
	defer timer.Stop()
	for due := begin; due.Before(end); {
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			<-timer.C
		}
		if time.Now().After(end) {
			return // behind its time: what was sent is less than what was asked
		}
		var b batch
		switch {
		case !e.replays:
			b = e.next()
		case len(e.recorded) == 0:
			return
		default:
			b = e.recorded[0]
			e.recorded[0] = batch{}
			e.recorded = e.recorded[1:]
		}
		due = due.Add(time.Duration(float64(e.publish(b)) / opsPerSecond * float64(time.Second)))
	}
}
