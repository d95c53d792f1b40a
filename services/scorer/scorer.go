// Package scorer turns prompts into block keys and asks the index which engines hold them.
//
// It is stateless but for caches, and answers in tens of milliseconds or says why it cannot: a prompt whose tokens
// cannot be known in time is unknown, an answer that lacks a part of the fleet is partial, and neither is an error. It
// chooses no engine, keeps no text, and never logs a prompt.
package scorer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
)

const (
	service    = "scorer"
	retryEvery = time.Second
)

// Config of Run. NATS is required; everything else has a usable zero value.
type Config struct {
	NATS     string       // URL
	Instance string       // name among the members; default: host name and random digits
	Listen   string       // host:port of gRPC; default 127.0.0.1:0
	Listener net.Listener // used instead of Listen

	TokenizeTimeout     time.Duration // of an engine's answer, with 1 ms more for each 10 KB of prompt; 0 is 25 ms
	TokenizeConcurrency int           // prompts that engines tokenize at a time; 0 is 32
	CacheBytes          int64         // token ids kept; 0 is 64 MiB
	MatchTimeout        time.Duration // of the index's answer; 0 is 5 ms

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
	if err := run(ctx, cfg); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run scorer: %w", err)
	}
	return nil
}

func run(ctx context.Context, cfg Config) error {
	cfg.Health.Set(service, "connecting to nats")
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: service + "." + cfg.Instance, Log: cfg.Log})
	if err != nil {
		return err
	}
	defer conn.Close()
	cfg.Health.Set(service, "meeting the fleet")
	seed, watcher, err := meetFleet(ctx, conn, cfg.Log)
	if err != nil {
		return err
	}
	s := newScorer(cfg, seed, watcher)
	defer s.close()
	address := advertised(cfg.Listener.Addr(), conn)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return serve(ctx, cfg.Listener, s.server) })
	g.Go(func() error {
		return fleet.Announce(ctx, conn, func() fleet.Member {
			return fleet.Member{Service: service, Instance: cfg.Instance, Address: address, Ready: true}
		})
	})
	cfg.Health.Set(service, "")
	cfg.Log.Info("scorer serves", "address", address, "instance", cfg.Instance)
	return g.Wait()
}

// meetFleet makes sure of the key-value buckets, reads the seed and watches the fleet, as soon as NATS lets it.
func meetFleet(ctx context.Context, conn *bus.Conn, log *slog.Logger) (blockkey.Seed, *fleet.Watcher, error) {
	try := func() (blockkey.Seed, *fleet.Watcher, error) {
		if err := conn.Ensure(ctx, bus.Sizes{}); err != nil {
			return blockkey.Seed{}, nil, err
		}
		seed, err := fleet.Seed(ctx, conn)
		if err != nil {
			return seed, nil, err
		}
		watcher, err := fleet.Watch(ctx, conn, log)
		return seed, watcher, err
	}
	for first := true; ; first = false {
		seed, watcher, err := try()
		if err == nil {
			return seed, watcher, nil
		}
		if first {
			log.Warn("cannot begin yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return seed, nil, err
		case <-time.After(retryEvery):
		}
	}
}

func (cfg Config) complete() (Config, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Instance == "" {
		cfg.Instance = newInstance()
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Listener == nil {
		l, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			return cfg, fmt.Errorf("listen for gRPC: %w", err)
		}
		cfg.Listener = l
	}
	return cfg, nil
}

// newInstance makes a name that no other process has, nor this one after a restart.
func newInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(host))
	var random [4]byte
	rand.Read(random[:]) // never fails
	return host + "-" + hex.EncodeToString(random[:])
}

// advertised is where others reach a listener: its own address or, where it listens on all, the address by which NATS
// knows this host.
func advertised(listen net.Addr, conn *bus.Conn) string {
	tcp, ok := listen.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return listen.String()
	}
	ip, err := conn.LocalIP()
	if err != nil {
		ip = net.IPv4(127, 0, 0, 1)
	}
	return (&net.TCPAddr{IP: ip, Port: tcp.Port}).String()
}

// cacheSeed keys the token cache's digests with the installation's secret.
func cacheSeed(seed blockkey.Seed) uint64 { return binary.LittleEndian.Uint64(seed[:]) }
