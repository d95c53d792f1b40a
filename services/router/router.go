// Package router serves the OpenAI API in front of a fleet of engines: it sends each request to the engine where it
// costs the whole fleet least, and passes the answer through.
//
// It is thin: no tokenizer, no index, no Kubernetes. Bodies are scanned, never decoded; answers are not parsed but for
// the usage chunk. When the scorer is away it approximates, when NATS is away it goes on with the last view of the
// fleet. Choosing is packages ledger and policy; the events of engines are ingest's and index's business.
package router

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/internal/bodies"
	"github.com/warmpath/warmpath/services/router/internal/engines"
	"github.com/warmpath/warmpath/services/router/internal/peers"
	"github.com/warmpath/warmpath/services/router/internal/scorers"
	"github.com/warmpath/warmpath/services/router/internal/tenants"
	"github.com/warmpath/warmpath/services/router/internal/wire"
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/policy"
)

const (
	defaultHold      = 10 * time.Second
	defaultQueueTTL  = time.Minute
	defaultBodyBytes = 1 << 30
	scrapeEvery      = time.Second
	bodyTime         = time.Minute      // a body must have come by then
	drainTime        = 30 * time.Second // streams under way at the end
)

// Config of Run. NATS and one of Listen and Listener are required; the rest has usable zero values.
type Config struct {
	NATS     string       // URL
	Instance string       // name among the members; "" is the host's name with a random suffix
	Listen   string       // host:port of the OpenAI API
	Listener net.Listener // used instead of Listen

	Policy    string        // warm, least-tokens, round-robin or random; "" is warm
	Seed      uint64        // of ties and of random; equal seeds and requests give equal choices
	Hold      time.Duration // how long a request waits for a pool's first engine; 0 is 10 s
	QueueTTL  time.Duration // how long a request waits for room on the engines; 0 is 1 min
	SLO       SLO           // what requests should keep; without one, engines queue for themselves up to 30 s
	BodyBytes int64         // of all request bodies under way; 0 is 1 GiB
	Keys      string        // file or folder of API keys, followed while it changes; keys in NATS count too
	NoAuth    bool          // serve who has no key, also on addresses that others reach
	Scrape    time.Duration // between two looks at an engine's metrics; 0 is 1 s, below 0 none
	EngineKey string        // API key of the engines; "" is the environment's VLLM_API_KEY, as for ingest
	Report    time.Duration // between two reports to the autoscaler; 0 is 1 s

	Log     *slog.Logger          // nil is slog.Default()
	Metrics prometheus.Registerer // nil is none; if it also gathers, /metrics is served here too
	Health  *daemon.Health        // part "router" is ready when requests are served; nil is none
}

// SLO is what requests of a pool should keep. Zeros are no objectives.
type SLO struct {
	TTFT time.Duration
	ITL  time.Duration
}

// fleetView is what the router needs of a fleet.Watcher.
type fleetView interface {
	View() *fleet.View
}

// sender is what the router needs of a bus.Conn.
type sender interface {
	Append(ctx context.Context, subject string, data []byte) error
	Send(subject string, data []byte) error
}

// router serves requests. All methods are safe for concurrent use.
type router struct {
	cfg      Config
	policy   policy.Name
	instance string
	started  time.Time
	log      *slog.Logger
	metrics  *metrics
	fleet    fleetView
	bus      sender
	scorers  scorers.Clients
	bodyTime time.Duration
	wall     func() time.Time // in whose minutes budgets are spent
	engines  engines.Client
	retries  retryBudget
	keys     tenants.Keys
	budgets  tenants.Budgets
	memory   *bodies.Memory
	peers    *peers.Peers
	given    abandoned
	records  records
	bodies   bodies.Pool
	chunks   sync.Pool // of *[]byte

	mu    sync.Mutex
	pools map[string]*pool
}

// Run serves until ctx ends, then lets requests under way finish, and returns nil.
func Run(ctx context.Context, cfg Config) error {
	rt, err := newRouter(cfg)
	if err != nil {
		return err
	}
	listener, err := daemon.Listen(cfg.Listener, cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	cfg.Health.Set("router", "connecting to NATS")
	// What a request needs at its end outlives ctx: the drain goes on after it.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: "router " + rt.instance, Log: rt.log})
	if err != nil {
		return stopped(ctx, err)
	}
	defer conn.Close()
	watcher, err := watch(ctx, life, conn, rt.log)
	if err != nil {
		return stopped(ctx, err)
	}
	rt.fleet, rt.bus = watcher, conn
	if err := rt.followTenants(ctx, life, conn, listener.Addr()); err != nil {
		return stopped(ctx, err)
	}
	defer rt.scorers.Close()
	defer rt.hangUp()
	return rt.serveAll(ctx, life, end, conn, listener)
}

// hangUp closes the idle connections to engines.
func (rt *router) hangUp() {
	if t, ok := rt.engines.RoundTripper.(*wire.Transport); ok {
		t.CloseIdleConnections()
	}
}

// stopped is nil where ctx has ended: whatever failed then failed because of it.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// watch meets the fleet; the watch lasts as long as life, the start as long as ctx.
func watch(ctx, life context.Context, conn *bus.Conn, log *slog.Logger) (*fleet.Watcher, error) {
	watching, give := context.WithCancel(life)
	keep := context.AfterFunc(ctx, give)
	w, err := fleet.Meet(watching, conn, log, nil)
	if err != nil || !keep() {
		give()
		return nil, errors.Join(err, ctx.Err())
	}
	return w, nil
}

func newRouter(cfg Config) (*router, error) {
	name, err := policy.Parse(cfg.Policy)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Hold == 0 {
		cfg.Hold = defaultHold
	}
	cfg.Scrape = cmp.Or(cfg.Scrape, scrapeEvery)
	if cfg.Instance == "" {
		cfg.Instance = fleet.NewInstance()
	}
	cfg.QueueTTL, cfg.BodyBytes = cmp.Or(cfg.QueueTTL, defaultQueueTTL), cmp.Or(cfg.BodyBytes, defaultBodyBytes)
	cfg.EngineKey = cmp.Or(cfg.EngineKey, os.Getenv("VLLM_API_KEY"))
	rt := &router{
		cfg: cfg, policy: name, started: time.Now(), log: cfg.Log, metrics: newMetrics(cfg.Metrics),
		instance: strings.NewReplacer(".", "-", "*", "-", ">", "-", " ", "-").Replace(cfg.Instance),
		engines:  engines.Client{RoundTripper: engines.NewTransport(), Key: cfg.EngineKey}, bodyTime: bodyTime, wall: time.Now,
		pools: make(map[string]*pool), memory: bodies.NewMemory(cfg.BodyBytes),
	}
	rt.budgets = tenants.Budgets{Store: noStore{}, Routers: rt.routers, Blind: rt.metrics.blind.Inc}
	rt.peers = rt.newPeers()
	rt.records.publish = rt.publish
	return rt, nil
}

func (rt *router) serveAll(ctx, life context.Context, end func(), conn *bus.Conn, listener net.Listener) error {
	var group errgroup.Group
	address := listener.Addr().String()
	group.Go(func() error {
		defer end()
		return daemon.ServeHTTP(ctx, listener, rt.handler(), drainTime)
	})
	group.Go(func() error { return rt.reports(life) })
	group.Go(func() error { return rt.peers.Run(life, conn) })
	group.Go(func() error { return rt.newWatch().Run(life) })
	if rt.cfg.Scrape > 0 {
		group.Go(func() error { return rt.newScraper().Run(life) })
	}
	group.Go(func() error {
		return fleet.Announce(life, conn, func() fleet.Member {
			return fleet.Member{Service: "router", Instance: rt.instance, Address: address, Ready: ctx.Err() == nil}
		})
	})
	rt.log.Info("serving requests", "address", address, "policy", string(rt.policy))
	rt.cfg.Health.Set("router", "")
	context.AfterFunc(ctx, func() { rt.cfg.Health.Set("router", "stopping") })
	err := group.Wait()
	rt.given.wait()
	rt.records.flush()
	return err
}

// pick is the ledgers' Picker: the policy of the configuration.
func (rt *router) pick(s *policy.State, o *policy.Observation, random uint64, costs []float64) policy.Choice {
	return policy.Pick(rt.policy, s, o, random, costs)
}

// pool returns what this router knows of a pool. Pool ids come from the fleet's view, so their number is bounded.
func (rt *router) pool(id string) *pool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	p := rt.pools[id]
	if p == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(id)) // a hash never fails
		p = &pool{id: id, Pool: ledger.NewPool(id, rt.pick, rt.cfg.Seed^h.Sum64(), rt.started)}
		rt.hang(&p.door, p)
		p.OnChange(rt.peers.Changed)
		rt.pools[id] = p
	}
	return p
}
