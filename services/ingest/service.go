package ingest

import (
	"context"
	"errors"
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

	found chan struct{} // holds one token when a source has news

	mu      sync.Mutex // held by run to change sources and buckets, and by others to read them
	sources []*source  // the slice is never changed in place
	buckets map[fleet.BucketID]*ownedBucket

	measured time.Time     // when the gauges were last set
	byID     sync.Map      // engine id -> *keeper, of all that are configured
	readers  chan struct{} // holds a token for each log that is being read
}

const maxReaders = 4 // logs that are read at a time

// ownedBucket is a bucket that we publish, and the engines that we read for it.
type ownedBucket struct {
	*bucket
	ctx     context.Context // ends when nothing more is published
	stop    context.CancelFunc
	done    sync.WaitGroup
	reading map[string]*reading // by engine id
	asked   time.Time           // when it last answered a reader
	listens func()              // stops to listen for another owner's claim; nil while nobody else should be the owner
}

// reading is a keeper at work.
type reading struct {
	*keeper
	stop context.CancelFunc
	done chan struct{}
}

// run follows the engines and the fleet until ctx ends.
func (s *service) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.follow(ctx, &all, s.cfg.Engines)
	present, leave := context.WithCancel(context.WithoutCancel(ctx)) // others take over once all is published
	all.Go(func() {
		_ = fleet.Announce(present, s.conn, func() fleet.Member {
			return fleet.Member{Service: "ingest", Instance: s.cfg.Instance, Ready: true}
		})
	})
	defer leave()
	all.Go(func() { s.upkeep(ctx) })
	all.Go(func() { s.keepReadable(ctx) })
	if stop, err := s.conn.Listen(bus.AllAsks, s.asked); err != nil {
		s.log.Warn("readers cannot ask for snapshots", "err", err)
	} else {
		defer stop()
	}
	defer s.listenToRecords()()
	gauges := time.NewTicker(s.cfg.times.gauges)
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
		case engines := <-s.cfg.Changes:
			if engines, err := usable(engines); err != nil {
				s.log.Error("cannot use the list of engines; the one before stays", "err", err)
			} else {
				s.follow(ctx, &all, engines)
			}
		}
	}
	s.flush()
}

// follow probes these engines from now on, and no others.
func (s *service) follow(ctx context.Context, all *sync.WaitGroup, engines []Engine) {
	before := s.following()
	now := make([]*source, 0, len(engines))
	for _, e := range engines {
		if i := slices.IndexFunc(before, func(src *source) bool { return src.engine == e }); i >= 0 {
			now = append(now, before[i])
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		src := &source{engine: e, service: s, stop: stop}
		now = append(now, src)
		all.Go(func() { src.run(ctx) })
	}
	for _, src := range before {
		if !slices.Contains(now, src) {
			src.stop()
			for _, k := range src.keepers() {
				s.byID.Delete(k.rank.id)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources = now
}

// following are the sources at present.
func (s *service) following() []*source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sources
}

// flush stops reading and publishes what is folded, if NATS is there, for a while at most.
func (s *service) flush() {
	stop := func() {
		for _, b := range s.buckets {
			b.stop()
		}
	}
	defer stop()
	over := make(chan struct{})
	var watch sync.WaitGroup
	defer watch.Wait()
	defer close(over)
	watch.Go(func() { s.limit(over, stop) })
	for _, b := range s.buckets {
		b.stopReading()
	}
	for _, b := range s.buckets {
		for _, r := range b.reading {
			<-r.done
		}
		b.finish()
	}
	for _, b := range s.buckets {
		b.wait()
	}
}

// limit calls stop after a while, or when NATS is away, unless it is over before.
func (s *service) limit(over <-chan struct{}, stop func()) {
	defer stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(s.cfg.times.flush); s.conn.Up() && time.Now().Before(end); {
		select {
		case <-over:
			return
		case <-look.C:
		}
	}
}

// reconcile makes the buckets and engines that we serve those that we should.
func (s *service) reconcile(ctx context.Context) {
	view := s.fleet.View()
	members := ingestMembers(view)
	joined := slices.Contains(members, s.cfg.Instance)
	engines := map[fleet.BucketID]map[string]*keeper{}
	sources := s.following()
	answered := len(sources) == 0
	for _, src := range sources {
		for _, k := range src.keepers() {
			answered = true
			id := fleet.BucketOf(k.pool.ID, k.rank.id)
			if engines[id] == nil {
				engines[id] = map[string]*keeper{}
			}
			engines[id][k.rank.id] = k
		}
	}
	s.releaseOthers(engines, func(id fleet.BucketID) bool { return joined && ownerOf(id, members) == s.cfg.Instance })
	for id, b := range s.buckets {
		for engine, r := range b.reading {
			if engines[id][engine] != r.keeper { // another pool, or other sizes; its neighbours stay undisturbed
				r.end()
				b.remove(engine)
				delete(b.reading, engine)
			}
		}
	}
	for id, keepers := range engines {
		if s.buckets[id] != nil || joined && ownerOf(id, members) == s.cfg.Instance {
			s.serve(ctx, id, keepers)
		}
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

// serve takes a bucket if it is not ours yet, and reads the engines that are new in it. Their sockets open first.
func (s *service) serve(ctx context.Context, id fleet.BucketID, keepers map[string]*keeper) {
	b := s.buckets[id]
	fresh := b == nil
	if fresh {
		subject := id.Subject()
		publishing, stop := context.WithCancel(context.WithoutCancel(ctx)) // goes on for a while after ctx
		b = &ownedBucket{ctx: publishing, stop: stop, reading: map[string]*reading{},
			bucket: newBucket(subject, s.cfg.Instance, s.conn.Writer(subject), s.cfg.times.fenced, s.log, s.m)}
		b.history, b.changed = bucketHistory{s, id}, func() { token(s.found) }
		s.mu.Lock()
		s.buckets[id] = b
		s.mu.Unlock()
	}
	wait := time.Duration(0)
	for engine, k := range keepers {
		if b.reading[engine] == nil {
			b.read(ctx, engine, k)
		}
		if k.rank.events != "" && k.rank.replay == "" {
			wait = s.cfg.times.join
		}
	}
	if fresh {
		b.done.Go(func() {
			pause(b.ctx, wait)
			b.bucket.run(b.ctx)
		})
	}
}

// read begins to read an engine.
func (b *ownedBucket) read(ctx context.Context, engine string, k *keeper) {
	ctx, stop := context.WithCancel(ctx)
	r := &reading{keeper: k, stop: stop, done: make(chan struct{})}
	b.reading[engine] = r
	var session *session
	if k.blind == "" {
		session = k.open(b.bucket)
		b.add(session.cache)
	}
	go func() {
		defer close(r.done)
		k.run(ctx, session)
	}()
}

func (r *reading) end() {
	r.stop()
	<-r.done
}

// stopReading stops to read all engines of the bucket.
func (b *ownedBucket) stopReading() {
	for _, r := range b.reading {
		r.stop()
	}
}

// wait waits until nothing is read or published.
func (b *ownedBucket) wait() {
	for _, r := range b.reading {
		<-r.done
	}
	b.done.Wait()
}

// asked publishes snapshots of a bucket of ours.
func (s *service) asked(subject string, _ []byte) {
	pool, n, ok := bus.ParseAskSubject(subject)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[fleet.BucketID{Pool: pool, N: n}]; b != nil && time.Since(b.asked) > s.cfg.times.ask {
		b.asked = time.Now()
		b.each((*cache).again)
	}
}

// upkeep puts back what NATS has lost and everybody needs to be the same: the seed of the keys and the pools' records.
func (s *service) upkeep(ctx context.Context) {
	for complained := false; ctx.Err() == nil; pause(ctx, s.cfg.times.upkeep) {
		err := fleet.KeepSeed(ctx, s.conn, s.seed)
		for _, src := range s.following() {
			for _, k := range src.keepers() {
				if _, ok := s.fleet.View().Pools[k.pool.ID]; !ok && err == nil {
					_, err = fleet.EnsurePool(ctx, s.conn, k.pool)
				}
			}
		}
		if errors.Is(err, fleet.ErrOtherSeed) && !complained {
			complained = true
			s.log.Error("NATS has lost the hash seed and another was made: restart all ingest and scorer replicas", "err", err)
		}
	}
}

// forget deletes the records of engines in our buckets that nobody is told of any more, and marks as gone those that
// have not answered since we began.
func (s *service) forget(ctx context.Context, view *fleet.View, members []string) {
	configured := map[string]string{} // engine id -> its pool, empty while it is not known
	lost := map[string]bool{}
	for _, src := range s.following() {
		f, gone := src.state()
		for _, r := range src.engine.ranks() {
			configured[r.id] = ""
			lost[r.id] = f == nil && gone
		}
		for _, k := range src.keepers() {
			configured[k.rank.id] = k.pool.ID
		}
	}
	for _, e := range view.Engines {
		if ownerOf(fleet.BucketOf(e.Pool, e.ID), members) != s.cfg.Instance {
			continue
		}
		call, cancel := context.WithTimeout(ctx, probeTimeout)
		pool, ok := configured[e.ID]
		switch {
		case !ok || pool != "" && pool != e.Pool:
			if err := fleet.DeleteEngine(call, s.conn, e.Pool, e.ID); err == nil {
				s.log.Info("engine forgotten: it is not configured any more", "engine", e.Name, "pool", e.Pool)
			}
		case lost[e.ID] && e.State != fleet.Gone:
			e.State, e.Why = fleet.Gone, noAnswer
			if err := fleet.PutEngine(call, s.conn, e); err == nil {
				s.log.Info("engine state", "engine", e.Name, "state", e.State, "why", e.Why)
			}
		}
		cancel()
	}
}

// measure sets the gauges.
func (s *service) measure() {
	states := map[fleet.State]int{fleet.OK: 0, fleet.Partial: 0, fleet.Blind: 0, fleet.Silent: 0, fleet.Gone: 0}
	waiting := 0
	for _, b := range s.buckets {
		for _, k := range b.reading {
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
	now := time.Now()
	for state, n := range states {
		s.m.engines.WithLabelValues(string(state)).Set(float64(n))
		if !s.measured.IsZero() {
			s.m.seconds.WithLabelValues(string(state)).Add(float64(n) * now.Sub(s.measured).Seconds())
		}
	}
	s.measured = now
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
func ownerOf(id fleet.BucketID, members []string) string {
	owner, highest := "", uint64(0)
	for _, name := range members {
		h := xxh3.HashString(name + "\x00" + id.Subject())
		if owner == "" || h > highest || h == highest && name < owner {
			owner, highest = name, h
		}
	}
	return owner
}
