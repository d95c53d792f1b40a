package ingest

import (
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// cache is what we know of one engine's KV cache, and what of it has not been published. Its session folds batches in,
// the publisher of its bucket takes parts of messages out; neither ever waits for the other.
//
// What waits is bounded by the cache itself: deltas that would outgrow a snapshot are dropped, and a snapshot follows.
type cache struct {
	id   string
	wake func() // tells the publisher that there is something to take

	mu         sync.Mutex
	fold       *prefix.Engine
	last       stamp // last batch folded
	generation uint64
	deltas     []delta // not yet taken, oldest first
	size       int     // of them, bytes
	begin      string  // not empty: a reset is due, for this reason
	due        bool    // a snapshot is due; until it is taken no deltas are kept
	parts      []sized
	left       int // bytes of parts
}

// sized is a part of a snapshot that is on its way.
type sized struct {
	part *eventsv1.Part
	size int
}

// delta is what one batch changed.
type delta struct {
	batch    stamp
	received time.Time
	runs     []prefix.Run
	done     int // operations of the batch that are published already
}

// skip notes a batch that could not be read: its sequence is used up.
func (c *cache) skip(f stamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = f
}

// apply folds a batch and returns how many blocks its events name.
func (c *cache) apply(f stamp, received time.Time, events []kvevent.Event) (blocks int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var runs []prefix.Run
	for i := range events {
		blocks += len(events[i].Hashes)
		runs = c.fold.Fold(&events[i], runs)
	}
	c.last = f
	if len(runs) == 0 || c.due {
		return blocks
	}
	c.deltas = append(c.deltas, delta{batch: f, received: received, runs: runs})
	for i := range runs {
		c.size += runSize(&runs[i])
	}
	if c.size > max(maxMessage, c.snapshotSize()) {
		c.deltas, c.size, c.due = nil, 0, true
	}
	c.wake()
	return blocks
}

// snapshotSize is about what a snapshot takes.
func (c *cache) snapshotSize() int { return 20 * c.fold.Stats().Copies }

// reset begins a new life.
func (c *cache) reset(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fold.Reset()
	c.last, c.deltas, c.size, c.parts, c.left = stamp{}, nil, 0, nil, 0
	c.begin, c.due = reason, false
	c.wake()
}

// renew publishes the whole state anew, as that of a new generation: readers may hold anything.
func (c *cache) renew(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deltas, c.size, c.parts, c.left = nil, 0, nil, 0
	c.begin, c.due = reason, true
	c.wake()
}

// again publishes the whole state anew in the same generation, as a reader may lack it. A snapshot that is on its way
// anyway, or a life about to begin, is enough.
func (c *cache) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begin != "" || c.due || len(c.parts) > 0 {
		return
	}
	c.deltas, c.size, c.due = nil, 0, true
	c.wake()
}

// take moves what is due out, in order, into parts of at most budget bytes; where whole is set, at least one run even
// if that is larger. A reset is taken without a snapshot, which needs the generation that the reset is given.
func (c *cache) take(budget int, whole bool) (parts []*eventsv1.Part, size int, reset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begin != "" {
		if budget < headroom {
			return nil, 0, false
		}
		parts, size, reset = append(parts, resetPart(c.id, c.begin)), headroom, true
		c.begin, c.generation = "", 0
		if c.due {
			return parts, size, reset
		}
		whole = false
	}
	if len(c.parts) == 0 && c.due && c.generation != 0 {
		c.cutSnapshot()
	}
	if len(c.parts) > 0 {
		if !whole {
			return parts, size, reset // a snapshot's part fills a message
		}
		first := c.parts[0]
		c.parts[0] = sized{}
		c.parts, c.left = c.parts[1:], c.left-first.size
		return []*eventsv1.Part{first.part}, maxMessage, false
	}
	if d, n := c.takeDeltas(budget-size-headroom, whole); d != nil {
		parts, size = append(parts, deltaPart(c.id, d)), size+n+headroom
	}
	return parts, size, reset
}

// takeDeltas merges batches as long as they fit, and cuts one that fits no message.
func (c *cache) takeDeltas(budget int, whole bool) (out *eventsv1.Delta, size int) {
	for len(c.deltas) > 0 {
		d := &c.deltas[0]
		if out == nil {
			out = &eventsv1.Delta{Received: d.received.UnixNano()}
		}
		for len(d.runs) > 0 {
			r := &d.runs[0]
			n := runSize(r)
			if size+n > budget && !(whole && size == 0) {
				if d.done > 0 {
					out.Batch = d.batch.toLog(d.done)
				}
				if size == 0 {
					return nil, 0
				}
				return out, size
			}
			out.Runs = append(out.Runs, eventlog.Logged(r))
			size, c.size, d.done, d.runs = size+n, c.size-n, d.done+operations(r), d.runs[1:]
		}
		out.Batch = d.batch.toLog(0)
		c.deltas[0] = delta{}
		c.deltas = c.deltas[1:]
	}
	return out, size
}

// cutSnapshot writes the state as parts. What is folded from now on follows them.
func (c *cache) cutSnapshot() {
	budget := maxMessage - 2*headroom
	var current *eventsv1.Snapshot
	var all []*eventsv1.Snapshot
	room := 0
	for r := range c.fold.Snapshot {
		n := runSize(&r)
		if current == nil || n > room {
			current, room = &eventsv1.Snapshot{}, budget
			all = append(all, current)
		}
		current.Runs = append(current.Runs, eventlog.Logged(&r))
		room -= n
	}
	if current == nil {
		current = &eventsv1.Snapshot{}
		all = append(all, current)
	}
	stats := c.fold.Stats()
	current.Count, current.Digest = uint64(stats.VisibleAny), stats.Digest
	c.left = 0
	for i, s := range all {
		s.Part, s.Parts, s.Batch, s.Generation = uint32(i+1), uint32(len(all)), c.last.toLog(0), c.generation
		size := 0
		for _, r := range s.Runs {
			size += 56 + 8*(len(r.Hashes)+len(r.Keys)+len(r.Shown))
		}
		c.parts, c.left = append(c.parts, sized{snapshotPart(c.id, s), size}), c.left+size
	}
	c.deltas, c.size, c.due = nil, 0, false
}

// published notes the sequence of the message that carried a reset.
func (c *cache) published(generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation = generation
	if c.due {
		c.wake()
	}
}

// unpublished is how many bytes wait.
func (c *cache) unpublished() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size + c.left
}

// known returns the counts and the generation in force, 0 while its reset is on the way.
func (c *cache) known() (prefix.EngineStats, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fold.Stats(), c.generation
}
