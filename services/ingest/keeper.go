package ingest

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/enginemetrics"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
)

// source is one entry of the configuration: an HTTP server with one or more ranks behind it. It asks the server who it
// is, again and again, and makes a keeper for each rank.
type source struct {
	engine  Engine
	service *service
	stop    context.CancelFunc // of run

	mu    sync.Mutex
	facts *facts
	gone  bool
	kept  []*keeper
}

func (s *source) keepers() []*keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

func (s *source) state() (f *facts, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facts, s.gone
}

// run probes until ctx ends.
func (s *source) run(ctx context.Context) {
	v := s.service
	answered, complained := time.Now(), ""
	for ctx.Err() == nil {
		f, err := probe(ctx, v.client, s.engine)
		if err == nil {
			err = s.learn(ctx, f)
		}
		switch {
		case err == nil:
			answered, complained = time.Now(), ""
			s.turn(false)
		case ctx.Err() != nil:
			return
		case complained == "":
			complained = err.Error()
			v.log.Warn("engine does not answer", "engine", s.engine.URL, "err", err)
		case time.Since(answered) > v.cfg.times.gone:
			s.turn(true)
		}
		known, _ := s.state()
		if known == nil || err != nil {
			pause(ctx, v.cfg.times.retry)
		} else {
			pause(ctx, v.cfg.times.probe)
		}
	}
}

// turn notes that an engine is gone or back. One that is back may be another, and readers have dropped it.
func (s *source) turn(gone bool) {
	s.mu.Lock()
	was := s.gone
	s.gone = gone
	kept := s.kept
	s.mu.Unlock()
	if was == gone {
		return
	}
	s.service.log.Info("engine changed", "engine", s.engine.URL, "gone", gone, "was", was)
	token(s.service.found)
	for _, k := range kept {
		if r := k.present(); !gone && r != nil {
			r.cache.renew("the engine is back")
			token(r.again)
		}
	}
}

var errNoSize = errors.New("/metrics tells no block size (vllm:cache_config_info)")

// learn takes facts in. Where pool or sizes are new, the ranks get new keepers.
func (s *source) learn(ctx context.Context, f *facts) error {
	old, _ := s.state()
	if old != nil && old.base == f.base && reflect.DeepEqual(old.sizes, f.sizes) {
		s.mu.Lock()
		s.facts = f
		kept := s.kept
		s.mu.Unlock()
		for _, k := range kept {
			if r := k.present(); r != nil && f.started != 0 {
				r.observe(f.started)
			}
			k.listen(time.Now(), f)
			if r := k.present(); r != nil {
				r.sleeps(f.sleep[k.rank.number])
			}
		}
		return nil
	}
	size := f.size(s.engine.Rank).BlockSize
	if size <= 0 && s.engine.Events != "" {
		return errNoSize
	}
	if size <= 0 {
		size = 16 // vLLM's default; the engine is blind anyway
	}
	pool, err := fleet.EnsurePool(ctx, s.service.conn, fleet.Pool{ID: fleet.PoolID(f.base), Model: f.base, BlockSize: size})
	if err != nil {
		return err
	}
	var kept []*keeper
	for _, r := range s.engine.ranks() {
		kept = append(kept, newKeeper(s, r, pool, f))
	}
	for _, k := range kept {
		s.service.byID.Store(k.rank.id, k)
	}
	s.mu.Lock()
	s.facts, s.kept = f, kept
	s.mu.Unlock()
	token(s.service.found)
	return nil
}

// keeper serves one rank for as long as its bucket is ours: it runs a session and writes the engine's record.
type keeper struct {
	source *source
	rank   rank
	pool   fleet.Pool
	config enginemetrics.CacheConfig
	blind  string // why no events are read; then there is no session

	mu      sync.Mutex
	session *session // while run does
	silence silence
}

func newKeeper(s *source, r rank, pool fleet.Pool, f *facts) *keeper {
	k := &keeper{source: s, rank: r, pool: pool, config: f.size(r.number)}
	if r.events == "" {
		k.blind = "no events endpoint"
	} else if err := blockkey.CheckSizes(pool.BlockSize, k.config.BlockSize); err != nil {
		k.blind = err.Error()
	}
	return k
}

// present returns the session that reads the engine now, or nil.
func (k *keeper) present() *session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.session
}

// open makes a session that knows nothing yet.
func (k *keeper) open(b *bucket) *session {
	v := k.source.service
	f, _ := k.source.state()
	s := newSession(k.rank, newCache(k.rank.id, k.options(), b.wake), v.log, v.m, v.cfg.times)
	s.blocks, s.started, s.process = k.config.NumGPUBlocks, f.started, k.process
	k.mu.Lock()
	defer k.mu.Unlock()
	k.session = s
	return s
}

func (k *keeper) options() prefix.EngineOptions {
	return prefix.EngineOptions{Seed: k.source.service.seed, Pool: k.pool.ID, BlockSize: k.pool.BlockSize, Blocks: k.config.NumGPUBlocks}
}

// close forgets the session: what it knew may fill much memory.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.session = nil
}

func (k *keeper) process(ctx context.Context) (float64, bool) {
	f, err := probe(ctx, k.source.service.client, k.source.engine)
	if err != nil || f.started == 0 {
		return 0, false
	}
	return f.started, true
}

// run reads the engine with s, unless it is nil, and keeps its record until ctx ends.
func (k *keeper) run(ctx context.Context, s *session) {
	var reading sync.WaitGroup
	defer reading.Wait()
	if s != nil {
		defer k.close()
		reading.Go(func() { s.run(ctx) })
	}
	v := k.source.service
	for was := fleet.State(""); ctx.Err() == nil; pause(ctx, v.cfg.times.record) {
		now := k.record()
		// What everybody sees counts, not what was written: NATS may have lost it.
		if seen, ok := v.fleet.View().Engines[k.rank.id]; ok && reflect.DeepEqual(now, seen) || now.Generation == 0 && k.blind == "" {
			continue
		}
		call, cancel := context.WithTimeout(ctx, probeTimeout)
		if err := fleet.PutEngine(call, v.conn, now); err == nil && was != now.State {
			v.log.Info("engine state", "engine", k.rank.name, "state", now.State, "was", was, "why", now.Why)
			was = now.State
		}
		cancel()
	}
}

const noAnswer = "its HTTP server does not answer"

// record is what the engine's record should say now.
func (k *keeper) record() fleet.Engine {
	f, gone := k.source.state()
	e := fleet.Engine{ID: k.rank.id, Name: k.rank.name, Pool: k.pool.ID, URL: k.rank.engine.URL, Role: k.rank.engine.Role, Sidecar: k.rank.engine.Sidecar,
		Rank: k.rank.number, Ranks: k.rank.of, Models: f.models, BlockSize: k.config.BlockSize,
		Blocks: k.config.NumGPUBlocks, State: fleet.OK}
	s := k.present()
	if k.blind != "" {
		e.State, e.Why = fleet.Blind, k.blind
	} else if s != nil {
		stats, generation := s.cache.known()
		partial, _, _ := s.told()
		e.Generation = generation
		switch {
		case stats.Refused != "":
			e.State, e.Why = fleet.Blind, stats.Refused
		case k.silent():
			e.State, e.Why = fleet.Silent, "it computes prompts, but no event comes from "+k.rank.events
		case partial != "":
			e.State, e.Why = fleet.Partial, partial
		case stats.Partial != "":
			e.State, e.Why = fleet.Partial, stats.Partial
		}
	}
	if gone {
		e.State, e.Why = fleet.Gone, noAnswer
	}
	return e
}
