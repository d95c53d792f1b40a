package plane

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
	"github.com/warmpath/warmpath/loadgen/process"
	"github.com/warmpath/warmpath/services/ingest"
)

// engines is the role of all engines together.
type engines struct {
	pool    string
	all     []*engine
	server  *http.Server
	started time.Time

	playing sync.WaitGroup
	begun   time.Time
	seconds float64
	before  total
}

type enginesConfig struct {
	NATS    string
	Count   int
	Blocks  int // of each engine
	Running int // sequences at once, of each engine
	Seed    uint64
	Kept    int // batches kept for replay; 0 is vLLM's 10,000
}

// startEngines answers with what ingest must be told of the engines.
func startEngines(ctx context.Context, config []byte) (process.Role, any, error) {
	var cfg enginesConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	scope, err := scopeOf(ctx, cfg.NATS)
	if err != nil {
		return nil, nil, err
	}
	r := &engines{pool: scope.Pool, started: time.Now()}
	r.server = &http.Server{Handler: r.pages(cfg.Blocks), ReadHeaderTimeout: 10 * time.Second}
	var list []ingest.Engine
	for i := range cfg.Count {
		listed, err := r.add(cfg, scope, i)
		if err != nil {
			r.Close()
			return nil, nil, fmt.Errorf("start engine %d: %w", i, err)
		}
		list = append(list, listed)
	}
	return r, list, nil
}

// scopeOf makes the pool of all engines here and returns what its keys are chained from.
func scopeOf(ctx context.Context, url string) (blockkey.Scope, error) {
	conn, err := bus.Connect(ctx, url, bus.Options{Name: "plane", Log: logger("plane")})
	if err != nil {
		return blockkey.Scope{}, err
	}
	defer conn.Close()
	scope := blockkey.Scope{Pool: fleet.PoolID(model), BlockSize: blockSize}
	if scope.Seed, err = fleet.Seed(ctx, conn); err != nil {
		return scope, err
	}
	_, err = fleet.EnsurePool(ctx, conn, fleet.Pool{ID: scope.Pool, Model: model, BlockSize: blockSize})
	return scope, err
}

func (r *engines) add(cfg enginesConfig, scope blockkey.Scope, i int) (ingest.Engine, error) {
	wire, err := kvwire.Listen("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", kvwire.PublisherOptions{BufferSteps: cfg.Kept})
	if err != nil {
		return ingest.Engine{}, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		wire.Close()
		return ingest.Engine{}, err
	}
	go func() { _ = r.server.Serve(listener) }()
	address := listener.Addr().(*net.TCPAddr)
	id := fleet.EngineIDFromURL(address.IP.String(), address.Port, 0)
	r.all = append(r.all, newEngine(id, wire, scope, cfg.Blocks, cfg.Running, cfg.Seed+uint64(i)))
	listed := ingest.Engine{URL: "http://" + address.String(), Name: fmt.Sprintf("engine-%d", i), Ranks: 1}
	listed.Events, listed.Replay = wire.Endpoints()
	return listed, nil
}

// pages are what ingest reads of an engine; all have the same.
func (r *engines) pages(blocks int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"object":"list","data":[{"id":%q,"max_model_len":32768}]}`, model)
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, fmt.Sprintf("process_start_time_seconds %d\nvllm:cache_config_info{block_size=\"%d\",num_gpu_blocks=\"%d\",engine=\"0\"} 1\n",
			r.started.Unix(), blockSize, blocks))
	})
	return mux
}

func (r *engines) Close() {
	r.playing.Wait()
	_ = r.server.Close()
	for _, e := range r.all {
		e.wire.Close()
	}
}

// engineCall are the arguments of a call: some of them.
type engineCall struct {
	Rate    float64 // operations a second that all engines publish together
	Seconds float64 // for how long; or how long to wait for the index
	Ops     int     // to record, of all engines together
	Index   string  // its address
	Chains  int     // to ask it for, of each engine; 0 is all
	Wrong   bool    // falsify the digests
}

// played is what was published since the last begin, and in what time.
type played struct {
	total
	Seconds float64
	Left    int    // batches recorded and not yet published
	Last    uint64 // the sequence of the last message, where the log was written directly
}

func (r *engines) Handle(ctx context.Context, name string, encoded []byte) (any, error) {
	var args engineCall
	if err := json.Unmarshal(encoded, &args); err != nil {
		return nil, err
	}
	switch name {
	case "fill":
		r.each(func(e *engine) { e.fill() })
		return r.sent(), nil
	case "record":
		r.each(func(e *engine) { e.record(args.Ops / len(r.all)) })
		return nil, nil
	case "begin":
		r.begin(args.Rate, args.Seconds)
		return nil, nil
	case "end":
		return r.end(), nil
	case "sent":
		return r.sent(), nil
	case "settled":
		return nil, r.settled(ctx, args.Index, args.Seconds)
	case "verify":
		return r.verify(ctx, args.Index, args.Chains, args.Seconds)
	}
	return nil, process.ErrUnknownCall
}

// each works on all engines, on as many at once as there are cores.
func (r *engines) each(work func(*engine)) {
	var group errgroup.Group
	group.SetLimit(cores())
	for _, e := range r.all {
		group.Go(func() error {
			work(e)
			return nil
		})
	}
	_ = group.Wait()
}

func (r *engines) sent() (all total) {
	for _, e := range r.all {
		all.add(e.sent)
	}
	return all
}

// begin lets all engines publish, not all at the same moment.
func (r *engines) begin(rate, seconds float64) {
	r.before, r.begun, r.seconds = r.sent(), time.Now(), seconds
	end := r.begun.Add(time.Duration(seconds * float64(time.Second)))
	each := rate / float64(len(r.all))
	for i, e := range r.all {
		const first = 100 * time.Millisecond
		r.playing.Go(func() { e.play(r.begun.Add(first*time.Duration(i)/time.Duration(len(r.all))), end, each) })
	}
}

// end waits until all is published.
func (r *engines) end() played {
	r.playing.Wait()
	p := played{total: r.sent(), Seconds: max(r.seconds, time.Since(r.begun).Seconds())}
	p.add(total{Ops: -r.before.Ops, Batches: -r.before.Batches, Bytes: -r.before.Bytes})
	for _, e := range r.all {
		p.Left += len(e.recorded)
	}
	return p
}

// settled waits until the index has each engine's newest block, and so all that came before it.
func (r *engines) settled(ctx context.Context, address string, seconds float64) error {
	x, err := dial(address, r.pool)
	if err != nil {
		return err
	}
	defer x.close()
	limit := time.Duration(seconds * float64(time.Second))
	for _, e := range r.all {
		chain := e.chain(e.newest)
		if err := until(ctx, limit, func() error {
			got, err := x.match(ctx, chain)
			if err == nil && got[e.id].GetGpu() != uint32(len(chain)) {
				err = fmt.Errorf("%s holds a chain of %d blocks, in the index %d", e.id, len(chain), got[e.id].GetGpu())
			}
			return err
		}); err != nil {
			return fmt.Errorf("wait for the index: %w", err)
		}
	}
	return nil
}

// verify compares the index with all engines, again and again until it is equal or time is over.
func (r *engines) verify(ctx context.Context, address string, chains int, seconds float64) (verdict, error) {
	x, err := dial(address, r.pool)
	if err != nil {
		return verdict{}, err
	}
	defer x.close()
	truths := map[string]truth{}
	var mu sync.Mutex
	r.each(func(e *engine) {
		t := e.truth(chains)
		mu.Lock()
		defer mu.Unlock()
		truths[e.id] = t
	})
	var v verdict
	err = until(ctx, time.Duration(seconds*float64(time.Second)), func() error {
		if v = x.compare(ctx, truths); v.Equal {
			return nil
		}
		return fmt.Errorf("not equal: %s", v.Why)
	})
	if ctx.Err() != nil {
		return v, err
	}
	return v, nil
}
