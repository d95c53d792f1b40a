// Package scorer turns prompts into block keys and asks the index which engines hold them.
//
// It is stateless but for caches, and answers in tens of milliseconds or says why it cannot: a prompt whose tokens
// cannot be known in time is unknown, an answer that lacks a part of the fleet is partial, and neither is an error. It
// chooses no engine, keeps no text, and never logs a prompt.
package scorer

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

const service = "scorer"

// Config of Run. NATS is required; the rest has usable zero values.
type Config struct {
	NATS     string       // URL
	Instance string       // name among the members; "" is the host's name with a random suffix
	Listen   string       // host:port of gRPC; "" is 127.0.0.1:0
	Listener net.Listener // used instead of Listen

	TokenizeTimeout     time.Duration // of an engine's answer, with 1 ms more for each 10 KB of prompt; 0 is 25 ms
	TokenizeConcurrency int           // prompts that engines tokenize at a time; 0 is 32
	CacheBytes          int64         // token ids kept; 0 is 64 MiB
	MatchTimeout        time.Duration // of the index's answer; 0 is 5 ms
	Tokenizers          []Tokenizer   // used in place of engines' once an engine has agreed with them

	Log     *slog.Logger          // nil is slog.Default()
	Metrics prometheus.Registerer // nil is none
	Health  *daemon.Health        // part "scorer" is ready when the fleet is known; nil is none
}

// Run serves until ctx ends, then leaves the members, finishes the calls in progress and returns nil.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.complete()
	if err != nil {
		return err
	}
	defer cfg.Listener.Close()
	tokenizers, err := loadTokenizers(cfg.Tokenizers)
	if err != nil {
		return fmt.Errorf("run scorer: %w", err)
	}
	if err := run(ctx, cfg, tokenizers); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run scorer: %w", err)
	}
	return nil
}

func run(ctx context.Context, cfg Config, tokenizers map[string]*bpe.Tokenizer) error {
	cfg.Health.Set(service, "connecting to NATS")
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: service + "." + cfg.Instance, Log: cfg.Log})
	if err != nil {
		return err
	}
	defer conn.Close()
	cfg.Health.Set(service, "meeting the fleet")
	var seed blockkey.Seed
	watcher, err := fleet.Meet(ctx, conn, cfg.Log, &seed)
	if err != nil {
		return err
	}
	s := newScorer(cfg, seed, tokenizers, watcher)
	defer s.close()
	address := fleet.Reachable(cfg.Listener.Addr(), conn)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return daemon.ServeGRPC(ctx, cfg.Listener, newGRPC(s.server), drainTime) })
	g.Go(func() error {
		return fleet.Announce(ctx, conn, func() fleet.Member {
			return fleet.Member{Service: service, Instance: cfg.Instance, Address: address, Ready: true}
		})
	})
	cfg.Health.Set(service, "")
	cfg.Log.Info("scorer serves", "address", address, "instance", cfg.Instance)
	return g.Wait()
}

func (cfg Config) complete() (Config, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Instance == "" {
		cfg.Instance = fleet.NewInstance()
	}
	var err error
	cfg.Listener, err = daemon.Listen(cfg.Listener, cfg.Listen)
	return cfg, err
}

// cacheSeed keys the token cache's digests with the installation's secret.
func cacheSeed(seed blockkey.Seed) uint64 { return binary.LittleEndian.Uint64(seed[:]) }
