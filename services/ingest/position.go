package ingest

import (
	"context"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
)

// keepReadable sees to it that whoever reads our buckets' logs finds what it needs in them: digests, snapshots before
// the stream discards the last ones, and positions from which to read. It returns when ctx ends.
func (s *service) keepReadable(ctx context.Context) {
	look, digest := time.NewTicker(s.cfg.times.look), time.NewTicker(s.cfg.times.digest)
	defer look.Stop()
	defer digest.Stop()
	var created time.Time // of the stream as we know it
	put := map[*ownedBucket]uint64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-digest.C:
			for _, b := range s.claimed() {
				b.each((*cache).tell)
			}
		case now := <-look.C:
			stream, err := s.conn.StreamState(ctx, bus.Events)
			if err != nil {
				continue // NATS is away: nothing is discarded meanwhile
			}
			lost := !created.IsZero() && !created.Equal(stream.Created)
			created = stream.Created
			put = s.position(ctx, put, lost, now, oldest(stream, now))
		}
	}
}

// oldest is the older half of the stream, by age or by bytes. Where its messages differ in size, the half by bytes is
// only about that: it is taken by their number.
func oldest(s bus.StreamState, now time.Time) (l limit) {
	if s.MaxAge > 0 {
		l.time = now.Add(-s.MaxAge / 2)
	}
	if half := uint64(max(s.MaxBytes, 0)) / 2; half > 0 && s.Bytes > half && s.Last >= s.First {
		behind := half * (s.Last - s.First + 1) / s.Bytes
		l.sequence = s.Last - min(behind, s.Last)
	}
	return l
}

// position asks all buckets for the snapshots that are due and records the positions that have moved. put holds what
// was recorded; what to pass the next time is returned. lost says that the stream was created anew.
func (s *service) position(ctx context.Context, put map[*ownedBucket]uint64, lost bool, now time.Time, l limit) map[*ownedBucket]uint64 {
	next := map[*ownedBucket]uint64{}
	for id, b := range s.claimed() {
		if lost {
			b.each((*cache).forgotten)
		}
		at := b.look(now, l)
		if at == 0 && lost {
			at = 1
		}
		if next[b] = put[b]; at == 0 || at == put[b] {
			continue
		}
		call, cancel := context.WithTimeout(ctx, probeTimeout)
		if err := fleet.PutPosition(call, s.conn, id, at); err == nil {
			next[b] = at
		}
		cancel()
	}
	return next
}

// claimed are the buckets that are ours now.
func (s *service) claimed() map[fleet.BucketID]*ownedBucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	ours := map[fleet.BucketID]*ownedBucket{}
	for id, b := range s.buckets {
		if b.ours.Load() {
			ours[id] = b
		}
	}
	return ours
}

// forgotten notes that the log tells nothing of the engine any more.
func (c *cache) forgotten() {
	c.mu.Lock()
	c.from = eventlog.Place{}
	c.mu.Unlock()
	c.again()
}
