// Package enginefleet starts and stops simulated engines in this process as an autoscaler orders: what Kubernetes is to
// pods. Engines take their time to start, run in real time with sockets of their own, and cost from the order on.
package enginefleet

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/ingest"
)

// Options of New. Engine.Model and Initial must be set.
type Options struct {
	Engine  enginesim.Options // of every engine; its Name, Seed and addresses are chosen for each
	Policy  decide.Policy
	Initial map[decide.Role]int // engines that run from the beginning
	Startup time.Duration       // from the order to the engine, in wall time, within 10 %
	Seed    uint64
	Log     *slog.Logger // nil is slog.Default()
}

// Fleet is engines of one pool. Its methods are safe for concurrent use.
type Fleet struct {
	o       Options
	pool    string
	changes chan []ingest.Engine
	ctx     context.Context // of the engines and those that start
	stop    context.CancelFunc
	tasks   sync.WaitGroup

	mu       sync.Mutex
	policy   decide.Policy
	random   *rand.Rand
	made     int
	replicas map[decide.Role][]*replica // in the order in which they were ordered
	starts   map[decide.Role][]time.Duration
	state    []byte
	lost     int // requests that were under way on engines that were stopped
	usage    usage
}

// replica is an engine, or one that starts.
type replica struct {
	name   string
	born   time.Time
	engine *enginesim.Engine // nil while it starts
	id     string            // of the engine in the fleet
	cancel context.CancelFunc
}

// New starts the initial engines. Close ends them all.
func New(ctx context.Context, o Options) (*Fleet, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	ctx, stop := context.WithCancel(ctx)
	f := &Fleet{
		o: o, policy: o.Policy, pool: fleet.PoolID(o.Engine.Model), changes: make(chan []ingest.Engine, 1), ctx: ctx, stop: stop,
		random: rand.New(rand.NewPCG(o.Seed, 0x666c656574)), replicas: make(map[decide.Role][]*replica), starts: make(map[decide.Role][]time.Duration),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, role := range slices.Sorted(maps.Keys(o.Initial)) {
		f.replicas[role] = nil
		for range o.Initial[role] {
			r := f.order(role)
			if err := f.run(r, f.options(r)); err != nil {
				stop()
				return nil, err
			}
		}
	}
	f.starts = make(map[decide.Role][]time.Duration) // those were not awaited
	return f, nil
}

// Close ends all engines and waits for them.
func (f *Fleet) Close() {
	f.stop()
	f.tasks.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, all := range f.replicas {
		for _, r := range all {
			if r.engine != nil {
				r.engine.Close()
			}
		}
	}
}

// Engines are those that run now, as ingest knows them.
func (f *Fleet) Engines() []ingest.Engine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.engines()
}

// Changes tells of the engines that run whenever they change; see ingest.Config. There is one listener.
func (f *Fleet) Changes() <-chan []ingest.Engine { return f.changes }

// engines is Engines. The lock is held.
func (f *Fleet) engines() (all []ingest.Engine) {
	for _, role := range slices.Sorted(maps.Keys(f.replicas)) {
		for _, r := range f.replicas[role] {
			if r.engine != nil {
				all = append(all, ingest.Engine{
					Name: r.name, URL: r.engine.URL(), Events: r.engine.Events(), Replay: r.engine.Replay(), Role: fleet.Role(role),
				})
			}
		}
	}
	return all
}

// changed tells of the engines: only the latest list counts. The lock is held.
func (f *Fleet) changed() {
	select {
	case <-f.changes:
	default:
	}
	f.changes <- f.engines()
}

// order adds a replica that starts. The lock is held.
func (f *Fleet) order(role decide.Role) *replica {
	f.usage.add(f.counts(), time.Now())
	r := &replica{name: fmt.Sprintf("%s-%d", role, f.made), born: time.Now(), cancel: func() {}}
	f.made++
	f.replicas[role] = append(f.replicas[role], r)
	return r
}

// options are those of a replica's engine. The lock is held.
func (f *Fleet) options(r *replica) enginesim.Options {
	o := f.o.Engine
	o.Name, o.Seed = r.name, f.random.Uint64()
	o.HTTP, o.Events, o.Replay = "127.0.0.1:0", "tcp://127.0.0.1:0", "tcp://127.0.0.1:0"
	return o
}

// run starts a replica's engine. The lock is held.
func (f *Fleet) run(r *replica, o enginesim.Options) error {
	engine, err := enginesim.Start(f.ctx, o)
	if err != nil {
		return fmt.Errorf("start %s: %w", r.name, err)
	}
	if r.id, err = engineID(engine.URL()); err != nil {
		engine.Close()
		return fmt.Errorf("start %s: %w", r.name, err)
	}
	r.engine = engine
	return nil
}

func engineID(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("read an engine's URL: %w", err)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return "", fmt.Errorf("read an engine's URL: %w", err)
	}
	n, err := strconv.Atoi(port)
	return fleet.EngineIDFromURL(host, n, 0), err
}

// begin lets a replica start, which takes its time. The lock is held.
func (f *Fleet) begin(role decide.Role, r *replica) {
	ctx, cancel := context.WithCancel(f.ctx)
	r.cancel = cancel
	wait := time.Duration(float64(f.o.Startup) * (.9 + .2*f.random.Float64()))
	o := f.options(r)
	f.tasks.Go(func() {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err := f.run(r, o); err != nil {
			f.o.Log.Error("engine does not start", "engine", r.name, "err", err)
			return
		}
		f.starts[role] = append(f.starts[role], time.Since(r.born))
		f.changed()
	})
}
