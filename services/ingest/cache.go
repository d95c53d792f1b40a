package ingest

import (
	"cmp"
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
	id      string
	options prefix.EngineOptions
	wake    func()        // tells the publisher that there is something to take
	adopted chan struct{} // closed when it is known what the log tells of the engine; nothing is folded before

	mu         sync.Mutex
	open       bool // adopted is closed
	fold       *prefix.Engine
	begun      bool   // last is a batch of this life
	last       stamp  // last batch folded
	why        string // the session says that the cache is known in part only
	late       bool   // because the beginning is missing
	generation uint64
	deltas     []delta   // not yet taken, oldest first
	size       int       // of them, bytes
	begin      string    // not empty: a reset is due, for this reason
	due        bool      // a snapshot is due; until it is taken no deltas are kept
	wished     bool      // a snapshot is due, but deltas go on
	resuming   bool      // the life is being taken over: what changes meanwhile is published as a snapshot, afterwards
	digest     bool      // a digest is due
	flight     time.Time // when the oldest batch was received of which a delta is sent and not acknowledged; zero if none
	parts      []sized   // of a snapshot on its way
	left       int       // bytes of parts

	from, coming eventlog.Place // where the log begins to tell of the engine; where it will, once the snapshot is whole
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
	size     int
	done     int // operations of the batch that are published already
}

func newCache(id string, o prefix.EngineOptions, wake func()) *cache {
	return &cache{id: id, options: o, wake: wake, adopted: make(chan struct{}), fold: prefix.NewEngine(o)}
}

// adopt takes what the log tells of the engine, nil if nothing; only then may its session fold.
func (c *cache) adopt(e *eventlog.Engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e != nil {
		c.fold, c.generation, c.from = e.Cache, e.Generation, e.From
		c.resuming, c.due = true, e.Behind
		if b := e.Batch; b != nil {
			c.begun, c.last = true, stamp{b.Sequence, b.Ts}
			if c.late = b.Late; b.Partial != c.fold.Stats().Partial {
				c.why = b.Partial
			}
		}
	}
	c.open = true
	close(c.adopted)
}

// reclaimed goes on after another owner had the bucket, who left this in the log. Our own state is as new as any.
func (c *cache) reclaimed(e *eventlog.Engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deltas, c.size, c.parts, c.left, c.due = nil, 0, nil, 0, true
	c.from, c.flight = eventlog.Place{}, time.Time{}
	if e != nil {
		c.from = e.From
	}
	if e == nil || e.Generation != c.generation {
		c.begin = cmp.Or(c.begin, "another owner had begun a life")
	}
	c.wake()
}

func (c *cache) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// resumed ends the taking over of a life.
func (c *cache) resumed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resuming = false
	c.wake()
}

// told returns the life in which the log left the engine, if it told of it.
func (c *cache) told() (life life, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	life.begun, life.last, life.partial, life.late = c.begun, c.last, c.why, c.late
	return life, c.resuming
}

// mark notes whether the cache is known in part only, from the next batch on.
func (c *cache) mark(partial string, late bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why, c.late = partial, late
}

// skip notes a batch that could not be read: its sequence is used up.
func (c *cache) skip(f stamp, received time.Time) { c.apply(f, received, nil) }

// apply folds a batch and returns how many blocks its events name.
func (c *cache) apply(f stamp, received time.Time, events []kvevent.Event) (blocks int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := delta{batch: f, received: received}
	for i := range events {
		blocks += len(events[i].Hashes)
	}
	d.runs = c.fold.FoldAll(events, nil)
	c.begun, c.last = true, f
	switch n := len(c.deltas); {
	case c.due:
		return blocks
	case c.resuming:
		c.due = len(d.runs) > 0
		return blocks
	case len(d.runs) == 0 && n > 0 && c.deltas[n-1].done == 0:
		c.deltas[n-1].batch = f // nothing happened since
		return blocks
	}
	for i := range d.runs {
		d.size += runSize(&d.runs[i])
	}
	c.deltas, c.size = append(c.deltas, d), c.size+d.size
	if c.size > max(maxMessage, c.snapshotSize()) {
		c.deltas, c.size, c.due = nil, 0, true
	}
	c.wake()
	return blocks
}

// snapshotSize is about what a snapshot takes.
func (c *cache) snapshotSize() int { return 20 * c.fold.Stats().Copies }

// weight is snapshotSize, at any time.
func (c *cache) weight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshotSize()
}

// reset begins a new life.
func (c *cache) reset(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fold = prefix.NewEngine(c.options)
	c.begun, c.last, c.why, c.late = false, stamp{}, "", false
	c.deltas, c.size, c.parts, c.left = nil, 0, nil, 0
	c.begin, c.due, c.wished, c.resuming = reason, false, false, false
	c.wake()
}

// wipe begins a generation with nothing held, in the same life: its next batch follows the last one.
func (c *cache) wipe(reason string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fold = prefix.NewEngine(c.options)
	c.parts, c.left, c.begin, c.due, c.wished = nil, 0, reason, false, false
	c.deltas, c.size = []delta{{batch: c.last, received: now}}, 0 // whoever takes over must not replay what was before
	c.wake()
}

// renew publishes the whole state anew, as that of a new generation: readers may hold anything.
func (c *cache) renew(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return
	}
	c.deltas, c.size, c.parts, c.left = nil, 0, nil, 0
	c.begin, c.due = reason, true
	c.wake()
}

// again publishes the whole state anew in the same generation, as a reader may lack it. A snapshot that is on its way
// anyway, or a life about to begin, is enough.
func (c *cache) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begin != "" || c.due || len(c.parts) > 0 || !c.open || c.generation == 0 {
		return
	}
	c.deltas, c.size, c.due = nil, 0, true
	c.wake()
}

// tell publishes a digest as soon as the log tells all that the cache holds.
func (c *cache) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.digest = true
	c.wake()
}

// receipt is what a message carried of a cache.
type receipt struct {
	c                  *cache
	reset, first, last bool // a reset; the first and the last part of a snapshot
	deltas             bool
}

// acknowledged notes where in the log the message of a receipt is.
func (r receipt) acknowledged(at eventlog.Place) {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.reset {
		c.generation, c.from = at.Sequence, at
		if c.due {
			c.wake()
		}
	}
	if r.deltas {
		c.flight = time.Time{}
	}
	if r.first {
		c.coming = at
	}
	if r.last {
		c.from = c.coming
	}
}

// take moves what is due out, in order, into parts of at most budget bytes; where whole is set, at least one run even
// if that is larger. Snapshots are not taken here.
func (c *cache) take(budget int, whole bool) (parts []*eventsv1.Part, size int, r receipt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.c = c
	if c.begin != "" {
		if budget < headroom {
			return nil, 0, r
		}
		parts, size, r.reset = append(parts, resetPart(c.id, c.begin)), headroom, true
		c.begin, c.generation = "", 0
		whole = false
	}
	if c.due || c.resuming || len(c.parts) > 0 {
		return parts, size, r
	}
	if d, n := c.takeDeltas(budget-size-headroom, whole); d != nil {
		parts, size, r.deltas = append(parts, deltaPart(c.id, d)), size+n+headroom, true
		c.flight = time.Unix(0, d.Received)
	}
	if c.digest && len(c.deltas) == 0 && c.generation != 0 && budget-size > headroom {
		stats := c.fold.Stats()
		d := &eventsv1.Digest{Batch: c.batch(), Count: uint64(stats.VisibleAny), Digest: stats.Digest}
		parts, size, c.digest = append(parts, digestPart(c.id, d)), size+headroom, false
	}
	return parts, size, r
}

// takeDeltas merges batches as long as they fit, and cuts one that fits no message. What is cut shares no delta with
// other batches, so that whoever takes over can tell where it ends.
func (c *cache) takeDeltas(budget int, whole bool) (out *eventsv1.Delta, size int) {
	for len(c.deltas) > 0 {
		d := &c.deltas[0]
		if size+d.size > budget && (size > 0 || !whole) {
			break
		}
		if out == nil {
			out = &eventsv1.Delta{Received: d.received.UnixNano()}
		}
		tail := d.done > 0
		for len(d.runs) > 0 {
			r := &d.runs[0]
			n := runSize(r)
			if size+n > budget && size > 0 {
				out.Batch = c.logged(d.batch, d.done)
				return out, size
			}
			out.Runs = append(out.Runs, eventlog.Logged(r))
			size, c.size, d.size, d.done, d.runs = size+n, c.size-n, d.size-n, d.done+eventlog.Operations(r), d.runs[1:]
		}
		out.Batch = c.logged(d.batch, 0)
		c.deltas[0] = delta{}
		c.deltas = c.deltas[1:]
		if tail {
			break
		}
	}
	return out, size
}

// logged is a batch as the log names it.
func (c *cache) logged(f stamp, done int) *eventsv1.Batch {
	b := &eventsv1.Batch{Sequence: f.seq, Ts: f.ts, Operations: uint32(done), Partial: cmp.Or(c.why, c.fold.Stats().Partial)}
	b.Late = c.late && b.Partial != ""
	return b
}

// batch is the last one folded, nil where the life has none yet.
func (c *cache) batch() *eventsv1.Batch {
	if !c.begun {
		return nil
	}
	return c.logged(c.last, 0)
}

// oldest is when the oldest batch was received of which readers have not been told; zero if there is none. While a
// snapshot is due it is not known, and long ago.
func (c *cache) oldest() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.due || c.resuming:
		return time.Unix(0, 0)
	case !c.flight.IsZero():
		return c.flight
	case len(c.deltas) > 0:
		return c.deltas[0].received
	}
	return time.Time{}
}

// inForce is the generation that the log tells, 0 while its reset is on the way.
func (c *cache) inForce() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
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
