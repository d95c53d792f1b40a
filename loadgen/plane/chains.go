package plane

import (
	"fmt"
	"math"

	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// ring is an engine that is nothing but its part of the log: it holds 16 prefixes of 10 blocks, which all engines hold,
// and behind or beside them chains of 20 to 60 blocks of its own; a new chain drives out the oldest one. Keys and hashes
// are numbers drawn from the chain's number, so that nothing must be remembered.
type ring struct {
	id          string
	number      uint64
	oldest, end uint64 // the chains held
	blocks      int    // held
	batches     uint64 // published
	generation  uint64
}

// draw is the finaliser of SplitMix64 (Steele, Lea, Flood 2014) over three numbers.
func draw(a, b, c uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 ^ b*0xbf58476d1ce4e5b9 ^ c*0x94d049bb133111eb
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// shared is the number of no engine: that of prefixes.
const shared = math.MaxUint64

func keysOf(engine, chain uint64, n int) []uint64 {
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = draw(engine, chain, uint64(i))
	}
	return keys
}

// hashesOf makes engine hashes of keys; each engine has its own.
func (r *ring) hashesOf(keys []uint64) []uint64 {
	hashes := make([]uint64, len(keys))
	for i, key := range keys {
		hashes[i] = draw(r.number, key, shared)
	}
	return hashes
}

func newRing(id string, number uint64, blocks int) *ring {
	r := &ring{id: id, number: number, blocks: prefixes * prefixBlocks}
	for r.blocks+mostPrompt <= blocks {
		r.blocks += r.length(r.end)
		r.end++
	}
	return r
}

// length is how many blocks a chain has beside its prefix.
func (r *ring) length(chain uint64) int {
	return leastPrompt + int(draw(r.number, chain, shared)%(mostPrompt-leastPrompt+1))
}

func (r *ring) own(chain uint64) []uint64 { return keysOf(r.number, chain, r.length(chain)) }

// prefix is the prefix that a chain lies behind, if it does.
func (r *ring) prefix(chain uint64) (keys []uint64) {
	if n := draw(r.number, chain, shared-1); n%2 == 0 {
		keys = keysOf(shared, n/2%prefixes, prefixBlocks)
	}
	return keys
}

// chain is the keys of a chain from its first block.
func (r *ring) chain(chain uint64) []uint64 { return append(r.prefix(chain), r.own(chain)...) }

func shownRun(change prefix.Change, keys []uint64) prefix.Run {
	return prefix.Run{Copy: change, GPU: change, Any: change, Keys: keys}
}

func (r *ring) stored(chain uint64) *eventsv1.Run {
	run := shownRun(prefix.Added, r.own(chain))
	run.Hashes, run.BlockSize = r.hashesOf(run.Keys), blockSize
	if before := r.prefix(chain); len(before) > 0 {
		run.Parent, run.HasParent = r.hashesOf(before[prefixBlocks-1:])[0], true
	}
	return eventlog.Logged(&run)
}

// snapshot yields the state as runs, parents first.
func (r *ring) snapshot(yield func(*eventsv1.Run) bool) {
	for n := range uint64(prefixes) {
		run := shownRun(prefix.Added, keysOf(shared, n, prefixBlocks))
		run.Hashes, run.BlockSize = r.hashesOf(run.Keys), blockSize
		if !yield(eventlog.Logged(&run)) {
			return
		}
	}
	for chain := r.oldest; chain < r.end; chain++ {
		if !yield(r.stored(chain)) {
			return
		}
	}
}

// churn drives out the oldest chains, deepest block first, for a new one, as one batch.
func (r *ring) churn() (runs []*eventsv1.Run, ops int) {
	length := r.length(r.end)
	for freed := 0; freed < length && r.oldest < r.end; r.oldest++ {
		keys := r.own(r.oldest)
		for i, j := 0, len(keys)-1; i < j; i, j = i+1, j-1 {
			keys[i], keys[j] = keys[j], keys[i]
		}
		run := shownRun(prefix.Removed, keys)
		runs, freed, ops = append(runs, eventlog.Logged(&run)), freed+len(keys), ops+len(keys)
		r.blocks -= len(keys)
	}
	runs = append(runs, r.stored(r.end))
	r.end++
	r.blocks += length
	r.batches++
	return runs, ops + length
}

// digest is of what the engine holds, by an index that holds nothing else.
func (r *ring) digest() (count int, digest uint64) {
	x := prefix.NewIndex()
	show := func(keys []uint64) {
		run := shownRun(prefix.Added, keys)
		x.Apply(r.id, &run)
	}
	for n := range uint64(prefixes) {
		show(keysOf(shared, n, prefixBlocks))
	}
	for chain := r.oldest; chain < r.end; chain++ {
		show(r.own(chain))
	}
	info, _ := x.Engine(r.id)
	return info.VisibleGPU, info.Digest
}

// held is the keys that the engine holds.
func (r *ring) held() map[uint64]bool {
	held := make(map[uint64]bool, r.blocks)
	for n := range uint64(prefixes) {
		for _, key := range keysOf(shared, n, prefixBlocks) {
			held[key] = true
		}
	}
	for chain := r.oldest; chain < r.end; chain++ {
		for _, key := range r.own(chain) {
			held[key] = true
		}
	}
	return held
}

// fleetOf names engines as addresses do and keeps those of a shard, of at most so many.
func fleetOf(engines, shards, shard int) (ids []string) {
	for i := range engines {
		host := fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)
		if id := fleet.EngineIDFromURL(host, 8000, 0); fleet.Bucket(id)%shards == shard {
			ids = append(ids, id)
		}
	}
	return ids
}
