package ingest

import (
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
)

// releaseOthers ends what we do for buckets that another member should own: as soon as that one has claimed the bucket,
// since until then nobody else reads its engines.
func (s *service) releaseOthers(engines map[fleet.BucketID]map[string]*keeper, own func(fleet.BucketID) bool) {
	var over []fleet.BucketID
	for id, b := range s.buckets {
		switch {
		case len(engines[id]) > 0 && own(id):
			b.listen(nil)
		case len(engines[id]) > 0 && b.ours.Load():
			s.awaitClaim(id, b)
		default:
			b.stop() // all stop at once, then each is waited for
			b.stopReading()
			over = append(over, id)
		}
	}
	for _, id := range over {
		s.release(id, s.buckets[id])
	}
}

// awaitClaim listens for another's claim of a bucket of ours. A claim that came before is met by the digests, which are
// refused then.
func (s *service) awaitClaim(id fleet.BucketID, b *ownedBucket) {
	if b.listens != nil {
		return
	}
	stop, err := s.conn.Listen(id.Subject(), func(_ string, data []byte) {
		if m, err := eventlog.Decode(data); err == nil && eventlog.Claims(m) && m.Owner != s.cfg.Instance {
			b.ours.Store(false)
			token(s.found)
		}
	})
	if err != nil {
		return // NATS is away: the next look tries again
	}
	b.listen(stop)
	b.each((*cache).tell)
}

// listen notes how to end the listening that has begun, and ends the one before.
func (b *ownedBucket) listen(stop func()) {
	if b.listens != nil {
		b.listens()
	}
	b.listens = stop
}

// release stops a bucket and all that is read for it: it is another's now, who refuses whatever we would still publish.
func (s *service) release(id fleet.BucketID, b *ownedBucket) {
	b.stop()
	b.stopReading()
	b.wait()
	b.listen(nil)
	s.mu.Lock()
	delete(s.buckets, id)
	s.mu.Unlock()
	s.log.Info("bucket released", "bucket", b.name)
}
