package scorer

import (
	"context"
	"log/slog"
	"math/bits"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
	"github.com/warmpath/warmpath/services/scorer/internal/fanout"
	"github.com/warmpath/warmpath/services/scorer/internal/tokens"
)

// scorer is a server and what keeps it abreast of the fleet.
type scorer struct {
	server  *server
	watcher *fleet.Watcher
	log     *slog.Logger
	engines atomic.Pointer[map[string][]string] // by pool: base URLs to tokenize at
	wrong   string                              // last address trouble that was logged; of follow
}

func newScorer(cfg Config, seed blockkey.Seed, tokenizers map[string]*bpe.Tokenizer, watcher *fleet.Watcher) *scorer {
	s := &scorer{watcher: watcher, log: cfg.Log}
	s.engines.Store(&map[string][]string{})
	var m *metrics // set below, before anything calls back
	source := tokens.New(tokens.Options{
		Engines:     func(pool string) []string { return (*s.engines.Load())[pool] },
		Timeout:     cfg.TokenizeTimeout,
		Concurrency: cfg.TokenizeConcurrency,
		CacheBytes:  cfg.CacheBytes,
		Seed:        cacheSeed(seed),
		Tokenizers:  tokenizers,
		Tried: func(model string, err error) {
			if err == nil {
				s.log.Info("tokenizer agrees with the engine's and is used", "model", model)
				return
			}
			s.log.Error("tokenizer is refused; engines tokenize instead", "model", model, "err", err)
		},
		Report: func(url string, err error) {
			if err == nil {
				s.log.Info("engine tokenizes again", "engine", url)
				return
			}
			s.log.Warn("engine does not tokenize; its prompts are unknown", "engine", url, "err", err)
		},
	})
	index := fanout.New(fanout.Options{
		Timeout: cfg.MatchTimeout,
		Failed:  func(string, error) { m.failures.Inc() },
	})
	m = newMetrics(cfg.Metrics,
		func() float64 { return float64(source.CacheBytes()) },
		func() float64 { return float64(bits.OnesCount64(^index.Covered())) })
	s.server = &server{
		seed: seed, view: watcher.View, tokens: source, index: index, reserve: cfg.MatchTimeout, metrics: m,
	}
	if s.server.reserve == 0 {
		s.server.reserve = fanout.Timeout
	}
	s.learn(watcher.View())
	return s
}

// follow learns every change of the fleet until ctx ends.
func (s *scorer) follow(ctx context.Context) error {
	for {
		changed := s.watcher.Changed()
		s.learn(s.watcher.View())
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (s *scorer) learn(v *fleet.View) {
	before := s.server.index.Covered()
	err := s.server.index.Set(v.Members)
	s.complain(err)
	if now := s.server.index.Covered(); now != before {
		s.log.Info("index coverage changed", "uncovered_buckets", bits.OnesCount64(^now), "was", bits.OnesCount64(^before))
	}
	engines := make(map[string][]string)
	for _, e := range v.Engines {
		if e.State != fleet.Gone && e.URL != "" {
			engines[e.Pool] = append(engines[e.Pool], strings.TrimRight(e.URL, "/"))
		}
	}
	for pool, urls := range engines { // ranks share one URL
		slices.Sort(urls)
		engines[pool] = slices.Compact(urls)
	}
	s.engines.Store(&engines)
}

// complain logs a trouble once, until it is another one.
func (s *scorer) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.wrong && err != nil {
		s.log.Warn("an index member cannot be asked", "err", err)
	}
	s.wrong = text
}

func (s *scorer) close() {
	s.server.index.Close()
	s.server.tokens.Close()
}
