package enginesim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// Errors that an Engine's clients meet.
var (
	ErrClosed    = errors.New("enginesim: engine is closed")
	ErrRestarted = errors.New("enginesim: engine restarted")
)

// Options describes an engine that runs in real time. Only Model must be set.
type Options struct {
	Model    string   // id in /v1/models
	Adapters []string // LoRA adapters: models whose parent is Model
	Name     string   // in logs; part of the hash seed where that is unset
	// Profile, BlockSize, Blocks, MaxModelLen, Noise and Seed are those of CoreOptions.
	Profile     Profile
	BlockSize   int
	Blocks      int
	MaxModelLen int
	Noise       float64
	Seed        uint64
	TimeScale   float64 // 10 = ten times as fast as a real engine; 0 = 1
	// HTTP is the address to listen on; "" = a free port of 127.0.0.1.
	HTTP string
	// Events and Replay are ZeroMQ endpoints to bind, "tcp://127.0.0.1:0" for a free port. Without Events the engine
	// publishes none; without Replay nothing can be asked for again.
	Events, Replay string
	Topic          string           // of the event messages
	BufferSteps    int              // batches kept for replay; 0 = 10,000
	EarlyEvents    bool             // publish when a step begins, as early V1 engines, not when it ends
	Encoding       kvevent.Encoding // of the events
	// HashSeed is PYTHONHASHSEED. As in vLLM, an engine without one has hashes that no other engine and no other of
	// its lives has.
	HashSeed string
	Rank     int // data parallel rank
	// Connector says how prompts are handed from engine to engine, and Lease how long their blocks are kept for the
	// other, in the engine's time; 0 = as long as that connector does.
	Connector Connector
	Lease     time.Duration
	// NoRender is an engine of before vLLM v0.19, whose server knows nothing of /render.
	NoRender bool
	// Rendering, if not nil, is told of each request to render, which waits for it.
	Rendering func(r *http.Request)
	// Tokenize appends the tokens of a text to dst; nil = the package's Tokenize. Answers stay words of that one.
	Tokenize func(dst []uint32, text string) []uint32
	// Submitted, if not nil, is told of each completion by its X-Request-Id once it waits for its first step. The request
	// waits for it.
	Submitted func(requestID string)
	// Stepped, if not nil, is told after each step how long after its deadline the engine came to end it, in wall time.
	// The engine's loop waits for it.
	Stepped func(late time.Duration)
	Log     *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.TimeScale <= 0 {
		o.TimeScale = 1
	}
	if o.HTTP == "" {
		o.HTTP = "127.0.0.1:0"
	}
	if o.Tokenize == nil {
		o.Tokenize = Tokenize
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// core returns the options of the engine's core in its life number life.
func (o Options) core(life int) CoreOptions {
	seed := o.HashSeed
	if seed == "" {
		seed = fmt.Sprintf("unset %s %d %d %d", o.Name, o.Rank, o.Seed, life)
	}
	return CoreOptions{
		Profile: o.Profile, BlockSize: o.BlockSize, Blocks: o.Blocks, MaxModelLen: o.MaxModelLen,
		Noise: o.Noise, Seed: o.Seed, Hash: VLLMHash{Algorithm: blockkey.SHA256CBOR, Seed: seed},
	}
}

// Engine is a Core in real time, with the sockets of a vLLM server. Its methods are safe for concurrent use.
type Engine struct {
	o        Options
	listener net.Listener
	events   string // connectable endpoints
	replay   string
	server   *http.Server
	stop     context.CancelFunc
	done     sync.WaitGroup
	wake     chan struct{} // holds one value once there may be work
	calls    atomic.Uint64 // HTTP requests so far, for ids

	mu      sync.Mutex
	closed  bool
	core    *Core
	life    int                // counts restarts
	born    time.Time          // start of this life
	arrival time.Time          // of the request that ended the last idle time
	quiet   chan struct{}      // closed while the engine is idle and all its events are out
	wire    *kvwire.Publisher  // nil without events
	metrics *metrics           // of this life
	handed  map[string]*handed // prompts computed for other engines, by key
	expired int
}

// Start binds the engine's sockets and runs it until ctx ends or Close.
func Start(ctx context.Context, o Options) (*Engine, error) {
	o = o.withDefaults()
	if o.Model == "" {
		return nil, errors.New("start engine: no model name")
	}
	wire, err := listen(o, o.Events, o.Replay)
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	listener, err := net.Listen("tcp", o.HTTP)
	if err != nil {
		closeWire(wire)
		return nil, fmt.Errorf("start engine: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	e := newEngine(o)
	e.listener, e.wire, e.stop = listener, wire, stop
	if wire != nil {
		e.events, e.replay = wire.Endpoints()
	}
	e.server = &http.Server{
		Handler: e.routes(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	e.done.Go(func() { e.run(ctx) })
	e.done.Go(func() { _ = e.server.Serve(listener) })
	e.done.Go(func() {
		<-ctx.Done()
		e.closeSockets()
	})
	e.o.Log.Info("engine started", "engine", o.Name, "model", o.Model, "url", e.URL(), "events", e.events)
	return e, nil
}

// newEngine returns an engine without sockets that does not run yet.
func newEngine(o Options) *Engine {
	e := &Engine{
		o: o, wake: make(chan struct{}, 1), quiet: make(chan struct{}), core: NewCore(o.core(0)), born: time.Now(),
	}
	e.metrics = newMetrics(e)
	return e
}

// Close ends the engine, its requests and its sockets, as the end of Start's context does, and waits for it.
func (e *Engine) Close() {
	e.stop()
	e.done.Wait()
}

func (e *Engine) closeSockets() {
	_ = e.server.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	closeWire(e.wire)
}

// URL is the base URL of the HTTP server.
func (e *Engine) URL() string { return "http://" + e.listener.Addr().String() }

// Events is the endpoint of the event publisher, as a subscriber connects to it; "" without events.
func (e *Engine) Events() string { return e.events }

// Replay is the endpoint of the replay socket; "" without one.
func (e *Engine) Replay() string { return e.replay }

// Cached returns the number of physical copies by engine hash. While a step is under way that is what the cache holds
// at its end, when its events are published; after Quiesce it is exactly what the events of this life add up to.
func (e *Engine) Cached() map[uint64]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.core.Cached()
}

// Stats returns the core's figures, like Cached those at the end of the step under way.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.core.Stats()
}

// Publisher returns the publisher of this life, on which tests inject faults; nil without events.
func (e *Engine) Publisher() *kvwire.Publisher {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wire
}

// Quiesce waits until the engine is idle and has published all events.
func (e *Engine) Quiesce(ctx context.Context) error {
	e.mu.Lock()
	quiet := e.quiet
	e.mu.Unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for an idle engine: %w", ctx.Err())
	}
}

// Restart begins a new life: an empty cache, event sequences from 0, counters at 0, the same endpoints. Requests of
// the old life end with an error.
func (e *Engine) Restart() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	for _, s := range e.core.ids {
		fail(s.req, ErrRestarted)
	}
	e.forgetHanded()
	e.life++
	e.core, e.born = NewCore(e.o.core(e.life)), time.Now()
	e.metrics = newMetrics(e)
	e.nudge()
	closeWire(e.wire)
	e.wire = nil
	wire, err := listen(e.o, samePort(e.o.Events, e.events), samePort(e.o.Replay, e.replay))
	if err != nil {
		return fmt.Errorf("restart engine: %w", err)
	}
	e.wire = wire
	e.o.Log.Info("engine restarted", "engine", e.o.Name, "life", e.life)
	return nil
}

// submit queues all requests of one call, or none.
func (e *Engine) submit(requests []*Request) error {
	e.mu.Lock()
	core := e.core
	e.mu.Unlock()
	for _, r := range requests {
		core.Prepare(r)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	if e.core.Idle() {
		e.arrival = time.Now()
	}
	for i, r := range requests {
		if err := e.core.Submit(r); err != nil {
			for _, r := range requests[:i] {
				e.core.Abort(r.ID)
			}
			return err
		}
	}
	select {
	case <-e.quiet:
		e.quiet = make(chan struct{})
	default:
	}
	e.nudge()
	return nil
}

// abort forgets requests whose client has gone.
func (e *Engine) abort(requests []*Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range requests {
		if s := e.core.ids[r.ID]; s != nil && s.req == r {
			e.core.Abort(r.ID)
			e.metrics.aborted.Inc()
		}
	}
	e.nudge()
}

// nudge wakes the loop, or keeps it from falling asleep.
func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
