package index

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

const blockSize = 16

// tree is blocks that engines may hold: block i follows an earlier one, or none.
type tree struct {
	parent []int // -1 for none
	tokens [][]uint32
	hashes []uint64
	keys   []uint64
}

func newTree(rnd *rand.Rand, blocks int) *tree {
	t := &tree{}
	for i := range blocks {
		tokens := make([]uint32, blockSize)
		for j := range tokens {
			tokens[j] = rnd.Uint32N(1 << 15)
		}
		t.parent = append(t.parent, i-1-rnd.IntN(min(i+1, 3)))
		t.tokens = append(t.tokens, tokens)
		t.hashes = append(t.hashes, rnd.Uint64())
		var prompt []uint32
		for _, at := range t.path(i) {
			prompt = append(prompt, t.tokens[at]...)
		}
		keys := blockkey.Keys(nil, blockkey.Scope{Pool: testPool, BlockSize: blockSize}, prompt, nil)
		t.keys = append(t.keys, keys[len(keys)-1])
	}
	return t
}

// path is the blocks from the start of a prompt to block i.
func (t *tree) path(i int) (path []int) {
	for ; i >= 0; i = t.parent[i] {
		path = append(path, i)
	}
	slices.Reverse(path)
	return path
}

// chain is the keys of a path.
func (t *tree) chain(i int) (keys []uint64) {
	for _, at := range t.path(i) {
		keys = append(keys, t.keys[at])
	}
	return keys
}

// engineCache is one engine as its owner knows it.
type engineCache struct {
	id         string
	fold       *prefix.Engine
	generation uint64
	begun      uint64 // sequence of the first part of its newest snapshot, or of its reset
	gone       bool
}

func (c *engineCache) state() state {
	s := c.fold.Stats()
	return state{c.generation, s.Digest, s.VisibleGPU, s.VisibleAny, s.Evicted}
}

// keeper owns a bucket and writes its log as ingest does: it folds the events of real engine caches. Safe for
// concurrent use.
type keeper struct {
	*owner
	*tree
	mu      sync.Mutex
	rnd     *rand.Rand
	engines []*engineCache
	last    uint64 // sequence written, and
	mine    uint64 // that by the present owner
	quiet   bool   // deltas are dropped
}

func (w *world) keeper(seed uint64, bucket, engines, blocks int) *keeper {
	rnd := rand.New(rand.NewPCG(seed, uint64(bucket)))
	k := &keeper{owner: w.owner("a", bucket), tree: newTree(rnd, blocks), rnd: rnd}
	k.last = k.claim()
	k.mine = k.last
	for i := range engines {
		c := &engineCache{id: engineIn(bucket, i), fold: prefix.NewEngine(prefix.EngineOptions{Pool: testPool, BlockSize: blockSize})}
		k.engines = append(k.engines, c)
		k.reset(c)
	}
	return k
}

func (k *keeper) publish(parts ...*eventsv1.Part) uint64 {
	k.last = k.write(parts...)
	k.mine = k.last
	return k.last
}

func (k *keeper) reset(c *engineCache) {
	c.fold.Reset()
	c.generation = k.publish(resetOf(c.id))
	c.begun, c.gone = c.generation, false
	k.record(c.id, c.generation, fleet.OK)
}

// fold publishes what an event changes.
func (k *keeper) fold(c *engineCache, ev kvevent.Event) {
	var runs []*eventsv1.Run
	for _, r := range c.fold.Fold(&ev, nil) {
		runs = append(runs, eventlog.Logged(&r))
	}
	if len(runs) > 0 && !k.quiet {
		k.publish(deltaOf(c.id, runs...))
	}
}

// store stores the last blocks of a random path, or some of them again, perhaps beside gpu memory.
func (k *keeper) store(c *engineCache) {
	path := k.path(k.rnd.IntN(len(k.parent)))
	from := k.rnd.IntN(len(path))
	ev := kvevent.Event{Kind: kvevent.Stored, BlockSize: blockSize, Medium: "GPU"}
	if k.rnd.IntN(5) == 0 {
		ev.Medium = "CPU"
	}
	if from > 0 {
		ev.Parent, ev.HasParent = k.hashes[path[from-1]], true
	}
	for _, at := range path[from:] {
		ev.Hashes, ev.Tokens = append(ev.Hashes, k.hashes[at]), append(ev.Tokens, k.tokens[at]...)
	}
	k.fold(c, ev)
}

func (k *keeper) remove(c *engineCache) {
	ev := kvevent.Event{Kind: kvevent.Removed, Medium: "GPU"}
	if k.rnd.IntN(5) == 0 {
		ev.Medium = "CPU"
	}
	for range 1 + k.rnd.IntN(3) {
		ev.Hashes = append(ev.Hashes, k.hashes[k.rnd.IntN(len(k.hashes))])
	}
	k.fold(c, ev)
}

// snapshot publishes an engine's state, in parts of some runs each.
func (k *keeper) snapshot(c *engineCache) {
	parts := k.parts(c)
	for i, p := range parts {
		if seq := k.publish(p); i == 0 {
			c.begun = seq
		}
	}
}

func (k *keeper) parts(c *engineCache) (parts []*eventsv1.Part) {
	var all []*eventsv1.Snapshot
	room := 0
	for r := range c.fold.Snapshot {
		if room == 0 {
			all, room = append(all, &eventsv1.Snapshot{}), 1+k.rnd.IntN(8)
		}
		room--
		s := all[len(all)-1]
		s.Runs = append(s.Runs, eventlog.Logged(&r))
	}
	if all == nil {
		all = append(all, &eventsv1.Snapshot{})
	}
	now := c.state()
	last := all[len(all)-1]
	last.Count, last.Digest = uint64(now.Any), now.Digest
	for i, s := range all {
		s.Part, s.Parts, s.Generation = uint32(i+1), uint32(len(all)), c.generation
		parts = append(parts, &eventsv1.Part{Engine: c.id, Body: &eventsv1.Part_Snapshot{Snapshot: s}})
	}
	return parts
}

func (k *keeper) digest(c *engineCache) {
	now := c.state()
	k.publish(&eventsv1.Part{Engine: c.id, Body: &eventsv1.Part_Digest{Digest: &eventsv1.Digest{Count: uint64(now.Any), Digest: now.Digest}}})
}

// position records from where the bucket must be read.
func (k *keeper) position() {
	k.Helper()
	least := k.mine
	for _, c := range k.engines {
		if !c.gone {
			least = min(least, c.begun)
		}
	}
	if err := fleet.PutPosition(k.Context(), k.conn, fleet.BucketID{Pool: testPool, N: k.bucket}, least); err != nil {
		k.Fatal(err)
	}
}

// want is the state of every engine. k.mu is held, or nobody writes.
func (k *keeper) want() map[string]state {
	all := make(map[string]state)
	for _, c := range k.engines {
		if !c.gone {
			all[c.id] = c.state()
		}
	}
	return all
}

// churn stores and removes, publishes digests, and answers who asks, until ctx ends.
func (k *keeper) churn(ctx context.Context, pace, digests time.Duration) {
	tick, period := time.NewTicker(pace), time.NewTicker(digests)
	defer tick.Stop()
	defer period.Stop()
	asks := make(chan struct{}, 1)
	stop, err := k.conn.Listen(bus.AskSubject(testPool, k.bucket), func(string, []byte) {
		select {
		case asks <- struct{}{}:
		default:
		}
	})
	if err != nil {
		k.Error(err)
		return
	}
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.each(1, func(c *engineCache) {
				if k.rnd.IntN(5) < 3 {
					k.store(c)
				} else {
					k.remove(c)
				}
			})
		case <-period.C:
			k.each(len(k.engines), k.digest)
		case <-asks:
			k.each(len(k.engines), k.snapshot)
		}
	}
}

// each calls f with n engines, beginning with a random one.
func (k *keeper) each(n int, f func(*engineCache)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := k.rnd.IntN(len(k.engines))
	for i := range n {
		f(k.engines[(first+i)%len(k.engines)])
	}
}
