package ingest

import (
	"time"

	"github.com/warmpath/warmpath/libs/eventlog"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// snapshotFloor is how much of a bucket's log may be read from its position on, in bytes, however little the state is.
const snapshotFloor = 1 << 20

// wish asks for a snapshot without hurry: deltas go on until it is its turn.
func (c *cache) wish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.wished && c.begin == "" && !c.due && len(c.parts) == 0 && c.open && c.generation != 0 {
		c.wished = true
		c.wake()
	}
}

// cut writes the state as parts, if a snapshot is due and may be taken. What is folded from now on follows them.
func (c *cache) cut(urgent bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mayCut(urgent) {
		return false
	}
	const budget = maxMessage - 2*headroom
	var all []*eventsv1.Snapshot
	var sizes []int
	for r := range c.fold.Snapshot {
		n, last := runSize(&r), len(all)-1
		if last < 0 || sizes[last]+n > budget {
			all, sizes, last = append(all, &eventsv1.Snapshot{}), append(sizes, 0), last+1
		}
		all[last].Runs = append(all[last].Runs, eventlog.Logged(&r))
		sizes[last] += n
	}
	if len(all) == 0 {
		all, sizes = []*eventsv1.Snapshot{{}}, []int{0}
	}
	stats := c.fold.Stats()
	all[len(all)-1].Count, all[len(all)-1].Digest = uint64(stats.VisibleAny), stats.Digest
	for i, s := range all {
		s.Part, s.Parts, s.Batch, s.Generation = uint32(i+1), uint32(len(all)), c.batch(), c.generation
		c.parts, c.left = append(c.parts, sized{snapshotPart(c.id, s), sizes[i]}), c.left+sizes[i]
	}
	c.deltas, c.size, c.due, c.wished = nil, 0, false, false
	return true
}

// takePart takes the next part of the snapshot that is on its way, nil if none is.
func (c *cache) takePart() (*eventsv1.Part, receipt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.parts) == 0 {
		return nil, receipt{}
	}
	next := c.parts[0]
	c.parts[0] = sized{}
	c.parts, c.left = c.parts[1:], c.left-next.size
	if len(c.parts) == 0 && (len(c.deltas) > 0 || c.due || c.digest) {
		c.wake()
	}
	return next.part, receipt{c: c, first: next.part.GetSnapshot().Part == 1, last: len(c.parts) == 0}
}

// nextPart takes a part of a snapshot: one engine's at a time, those first whose deltas wait for it, else the one whose
// snapshot is the oldest.
func (b *bucket) nextPart() (*eventsv1.Part, receipt) {
	if b.cutting != nil {
		if part, r := b.cutting.takePart(); part != nil {
			return part, r
		}
		b.cutting = nil
	}
	for _, urgent := range []bool{true, false} {
		var oldest *cache
		for _, c := range b.caches {
			if c.wants(urgent) && (oldest == nil || c.begins().Sequence < oldest.begins().Sequence) {
				oldest = c
			}
		}
		if oldest != nil && oldest.cut(urgent) {
			b.cutting = oldest
			b.m.snapshots.Inc()
			return oldest.takePart()
		}
	}
	return nil, receipt{}
}

// wants says whether a snapshot is due that can be cut now.
func (c *cache) wants(urgent bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mayCut(urgent)
}

func (c *cache) mayCut(urgent bool) bool {
	return (c.due || c.wished && !urgent) && c.begin == "" && c.generation != 0 && !c.resuming && len(c.parts) == 0
}

// begins is where the log begins to tell of the engine; the zero place where it does not yet.
func (c *cache) begins() eventlog.Place {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from
}

// A limit is how far back in the stream a snapshot may lie.
type limit struct {
	sequence uint64
	time     time.Time
}

// look asks for the snapshots that are due, and returns from where the bucket's log must be read to know all its
// engines; 0 where it tells of none.
func (b *bucket) look(now time.Time, oldest limit) (position uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.toldAt) > toldFor {
		clear(b.told)
	}
	state := 0
	for _, c := range b.caches {
		state += c.weight()
	}
	earlier := func(from eventlog.Place) {
		if from.Sequence != 0 && (position == 0 || from.Sequence < position) {
			position = from.Sequence
		}
	}
	for _, c := range b.caches {
		from := c.begins()
		earlier(from)
		if from.Sequence < oldest.sequence || from.Time.Before(oldest.time) || b.written-from.Bytes > max(snapshotFloor, 3*state) {
			c.wish()
		}
	}
	for _, e := range b.told {
		earlier(e.From)
	}
	return position
}
