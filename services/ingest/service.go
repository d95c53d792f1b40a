package ingest

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
)

// service is one running replica.
type service struct {
	cfg    Config
	conn   *bus.Conn
	log    *slog.Logger
	m      *metrics
	client *http.Client
	seed   blockkey.Seed
	fleet  *fleet.Watcher

	sources []*source
	found   chan struct{} // holds one token when a source has news

	buckets map[bucketID]*ownedBucket // owned by run
}

type bucketID struct {
	pool string
	n    int
}

// ownedBucket is a bucket that we publish, and the engines that we read for it.
type ownedBucket struct {
	*bucket
	ctx     context.Context // ends when the bucket is released
	stop    context.CancelFunc
	done    sync.WaitGroup
	keepers map[string]*keeper // by engine id
}

// run follows the engines and the fleet until ctx ends.
func (s *service) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, e := range s.cfg.Engines {
		src := &source{engine: e, service: s}
		s.sources = append(s.sources, src)
		all.Go(func() { src.run(ctx) })
	}
	all.Go(func() {
		_ = fleet.Announce(ctx, s.conn, func() fleet.Member {
			return fleet.Member{Service: "ingest", Instance: s.cfg.Instance, Ready: true}
		})
	})
	gauges := time.NewTicker(5 * time.Second)
	defer gauges.Stop()
	for ctx.Err() == nil {
		changed := s.fleet.Changed()
		s.reconcile(ctx)
		s.measure()
		select {
		case <-ctx.Done():
		case <-changed:
		case <-s.found:
		case <-gauges.C:
		}
	}
	for id, b := range s.buckets {
		s.release(id, b)
	}
}

// reconcile makes the buckets and engines that we serve those that we should.
func (s *service) reconcile(ctx context.Context) {
	view := s.fleet.View()
	members := ingestMembers(view)
	joined := slices.Contains(members, s.cfg.Instance)
	wanted := map[bucketID]map[string]*keeper{}
	answered := len(s.sources) == 0
	for _, src := range s.sources {
		for _, k := range src.keepers() {
			answered = true
			id := bucketID{k.pool.ID, fleet.Bucket(k.rank.id)}
			if joined && ownerOf(id, members) == s.cfg.Instance {
				if wanted[id] == nil {
					wanted[id] = map[string]*keeper{}
				}
				wanted[id][k.rank.id] = k
			}
		}
	}
	for id, b := range s.buckets {
		for engine, k := range b.keepers {
			if wanted[id][engine] != k { // another owner, another pool, or other sizes
				s.release(id, b)
				break
			}
		}
	}
	for id, keepers := range wanted {
		s.serve(ctx, id, keepers)
	}
	if joined {
		s.forget(ctx, view, members)
	}
	switch {
	case !joined:
		s.cfg.Health.Set("ingest", "joining the fleet")
	case !answered:
		s.cfg.Health.Set("ingest", "no engine has answered yet")
	default:
		s.cfg.Health.Set("ingest", "")
	}
}

// serve takes a bucket if it is not ours yet, and reads the engines that are new in it.
func (s *service) serve(ctx context.Context, id bucketID, keepers map[string]*keeper) {
	b := s.buckets[id]
	if b == nil {
		subject := bus.EventSubject(id.pool, id.n)
		ctx, stop := context.WithCancel(ctx)
		b = &ownedBucket{ctx: ctx, stop: stop, keepers: map[string]*keeper{},
			bucket: newBucket(subject, s.cfg.Instance, s.conn.Writer(subject), s.cfg.times.fenced, s.log, s.m)}
		s.buckets[id] = b
		b.done.Go(func() { b.bucket.run(ctx) })
	}
	for engine, k := range keepers {
		if b.keepers[engine] == nil {
			b.keepers[engine] = k
			b.done.Go(func() { k.run(b.ctx, b.bucket) })
		}
	}
}

// release stops a bucket and all that is read for it.
func (s *service) release(id bucketID, b *ownedBucket) {
	b.stop()
	b.done.Wait()
	delete(s.buckets, id)
	s.log.Info("bucket released", "bucket", b.name)
}

// forget deletes the records of engines in our buckets that nobody is told of any more.
func (s *service) forget(ctx context.Context, view *fleet.View, members []string) {
	configured := map[string]string{} // engine id -> its pool, empty while it is not known
	for _, src := range s.sources {
		for _, r := range src.engine.ranks() {
			configured[r.id] = ""
		}
		for _, k := range src.keepers() {
			configured[k.rank.id] = k.pool.ID
		}
	}
	for _, e := range view.Engines {
		pool, ok := configured[e.ID]
		if ok && (pool == "" || pool == e.Pool) || ownerOf(bucketID{e.Pool, fleet.Bucket(e.ID)}, members) != s.cfg.Instance {
			continue
		}
		call, cancel := context.WithTimeout(ctx, probeTimeout)
		if err := fleet.DeleteEngine(call, s.conn, e.Pool, e.ID); err == nil {
			s.log.Info("engine forgotten: it is not configured any more", "engine", e.Name, "pool", e.Pool)
		}
		cancel()
	}
}

// measure sets the gauges.
func (s *service) measure() {
	states := map[fleet.State]int{fleet.OK: 0, fleet.Partial: 0, fleet.Blind: 0, fleet.Silent: 0, fleet.Gone: 0}
	waiting := 0
	for _, b := range s.buckets {
		for _, k := range b.keepers {
			states[k.record().State]++
			if reading := k.present(); reading != nil {
				waiting += reading.cache.unpublished()
				if _, least, timed := reading.told(); timed {
					s.m.offset.WithLabelValues(k.rank.name).Set(least)
					reading.warn(least)
				}
			}
		}
	}
	for state, n := range states {
		s.m.engines.WithLabelValues(string(state)).Set(float64(n))
	}
	s.m.waiting.Set(float64(waiting))
	s.m.owned.Set(float64(len(s.buckets)))
}

func ingestMembers(view *fleet.View) []string {
	var names []string
	for _, m := range view.Members {
		if m.Service == "ingest" {
			names = append(names, m.Instance)
		}
	}
	return names
}

// ownerOf is the member with the highest hash for a bucket: when one joins or leaves, only its buckets move.
func ownerOf(id bucketID, members []string) string {
	owner, highest := "", uint64(0)
	for _, name := range members {
		h := xxh3.HashString(name + "\x00" + bus.EventSubject(id.pool, id.n))
		if owner == "" || h > highest || h == highest && name < owner {
			owner, highest = name, h
		}
	}
	return owner
}
