// Package placements remembers where a router has just sent which prompts.
//
// Keyed knows the block keys of requests under way: until the index hears of their blocks they count as cached on the
// engine that is computing them, so that a burst of equal prompts stays together. Pieces knows the chained hashes of
// prompt bytes sent to each engine, and stands in for the index when nobody can say what the tokens are.
//
// Both are bounded and hold no prompt. They have no locks: their owner locks them. Time is an argument.
package placements

import "time"

// Linger is how long a prompt's blocks count as placed after the first byte: by then the index has heard of them.
const Linger = 2 * time.Second

// maxKeys bounds the keys under way in one Keyed; more requests are not remembered.
const maxKeys = 1 << 20

// keyAt is a key at an engine, as one word: maps of words are twice as fast as maps of pairs. Keys are hashes of 64 bits,
// so two pairs share a word no more often than two prompts share a key.
type keyAt uint64

func at(key uint64, engine uint32) keyAt { return keyAt(key ^ uint64(engine)*0x9e3779b97f4a7c15) }

// Keyed counts, for each block key and engine, the requests under way that compute it. The zero value is ready.
type Keyed struct {
	count  counts
	keys   int      // held by placements, repeated ones included
	linger []waiter // had their first byte, in order of time
}

type waiter struct {
	until time.Time
	p     *Placement
}

// Placement is one request's keys on one engine.
type Placement struct {
	engine uint32
	keys   []uint64
	ended  bool
}

// Size is the number of keys that are remembered.
func (k *Keyed) Size() int { return k.count.used }

// Place makes keys, the ones beyond what the index knows of the engine, count as cached there. It keeps the slice.
// Beyond its bound it remembers nothing. Cost: one look a key.
func (k *Keyed) Place(engine uint32, keys []uint64) *Placement {
	if len(keys) == 0 || k.keys+len(keys) > maxKeys {
		return &Placement{ended: true}
	}
	for _, key := range keys {
		k.count.inc(at(key, engine))
	}
	k.keys += len(keys)
	return &Placement{engine: engine, keys: keys}
}

// Depth is how many leading keys engine holds when the index says from: those it knows and, on from there, those under
// way. Cost: one look where nothing is placed, else logarithmic in the keys placed.
func (k *Keyed) Depth(engine uint32, keys []uint64, from int) int {
	held := func(i int) bool { return k.count.get(at(keys[i], engine)) > 0 }
	if k.count.used == 0 || from >= len(keys) || !held(from) {
		return from
	}
	low, step := from, 1 // held
	for low+step < len(keys) && held(low+step) {
		low += step
		step *= 2
	}
	high := min(low+step, len(keys)) // not held
	for low+1 < high {
		if mid := (low + high) / 2; held(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return low + 1
}

// FirstByte lets a placement linger and then end. now must not fall behind earlier calls.
func (k *Keyed) FirstByte(p *Placement, now time.Time) {
	if !p.ended {
		k.linger = append(k.linger, waiter{now.Add(Linger), p})
	}
}

// Drop ends a placement whose prompt will not be computed.
func (k *Keyed) Drop(p *Placement) {
	if p.ended {
		return
	}
	p.ended = true
	k.keys -= len(p.keys)
	for _, key := range p.keys {
		k.count.dec(at(key, p.engine))
	}
	p.keys = nil
}

// Expire ends the placements that have lingered long enough.
func (k *Keyed) Expire(now time.Time) {
	n := 0
	for n < len(k.linger) && !now.Before(k.linger[n].until) {
		k.Drop(k.linger[n].p)
		n++
	}
	clear(k.linger[:n])
	k.linger = k.linger[n:] // not copied down: thousands linger, and few end at a time
}
