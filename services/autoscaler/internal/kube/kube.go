// Package kube is a fleet of engines on Kubernetes: it reads ScalingPolicies and what runs of their roles, and carries
// out orders through the scale subresource of whatever is scaled.
//
// It decides nothing. What it says of the cluster carries the time at which that was confirmed, by reads and not only by
// watches, which fall silent without a word. An order is written only over the count that it was made from, never
// where somebody else scales the same object, and never so that an engine goes that has not drained.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

var (
	// ErrConflict is an order that came too late: somebody else changed the object. It has been read anew.
	ErrConflict = errors.New("scaled object changed")
	// ErrRefused is an order that must not be carried out. The reason is in the text; nothing was scaled.
	ErrRefused = errors.New("order refused")
)

// Managed is a pool that may be scaled.
type Managed struct {
	Policy   decide.Policy
	Replicas map[decide.Role]decide.Replicas
	State    []byte // that Keep kept last; nil is none
}

// Order asks for a number of replicas of one role.
type Order struct {
	Pool    string
	Role    decide.Role
	From    int      // what is ordered now
	To      int      // what shall be
	Victims []string // engines that have drained and should be those to go
	Why     string   // the binding rule
}

// Config of New. REST is required; the rest has usable zero values.
type Config struct {
	REST      *rest.Config
	Namespace string // of the lease; "" is warmpath
	Policies  string // namespace whose policies are in force; "" is all
	Instance  string // the lease's holder; must be unique among autoscalers that live

	Log     *slog.Logger          // nil is slog.Default()
	Metrics prometheus.Registerer // nil is none
}

// Fleet is the pools of a cluster that have a ScalingPolicy. Run keeps it current; Pools, Scale and Keep are called from
// one other goroutine, and Scale and Keep only by whom Lead lets.
type Fleet struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	dynamic  dynamic.Interface
	metadata metadata.Interface
	core     core.CoreV1Interface
	leases   coordination.CoordinationV1Interface
	kinds    kinds
	policies cache.SharedIndexInformer
	events   events

	every   time.Duration // between reads
	timeout time.Duration // of one
	lease   lease
	leading atomic.Bool
	deposed atomic.Bool // the lease was lost, and not won again

	mu    sync.Mutex         // over what follows, never held over a request
	pools map[string]*pool   // nil before the policies were read
	all   map[string]*policy // by namespace/name: also those that are invalid or come second
	roles map[key]*scaled
}

// New makes a Fleet of a cluster. It sends nothing yet.
func New(cfg Config) (*Fleet, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Namespace == "" {
		cfg.Namespace = "warmpath"
	}
	f := &Fleet{
		cfg: cfg, log: cfg.Log, metrics: newMetrics(cfg.Metrics),
		every: 5 * time.Second, timeout: 10 * time.Second, lease: lease{15 * time.Second, 10 * time.Second, 2 * time.Second},
	}
	config := rest.CopyConfig(cfg.REST)
	config.QPS, config.Burst = 50, 100 // a role costs about one request a second
	if err := f.connect(config); err != nil {
		return nil, fmt.Errorf("make clients of the cluster: %w", err)
	}
	f.policies = f.watchPolicies()
	f.events = newEvents(f.logged(context.Background()), f.core)
	return f, nil
}

func (f *Fleet) connect(config *rest.Config) error {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	var all [5]error
	f.dynamic, all[0] = dynamic.NewForConfigAndClient(config, client)
	f.metadata, all[1] = metadata.NewForConfigAndClient(config, client)
	f.core, all[2] = core.NewForConfigAndClient(config, client)
	f.leases, all[3] = coordination.NewForConfigAndClient(config, client)
	found, err := discovery.NewDiscoveryClientForConfigAndClient(config, client)
	all[4] = err
	f.kinds.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	return errors.Join(all[:]...)
}

// Run watches the cluster and reads it every few seconds until ctx ends, then returns nil. An API server that does not
// answer makes what Pools says grow old; it ends nothing.
func (f *Fleet) Run(ctx context.Context) error {
	ctx = f.logged(ctx)
	defer f.events.stop()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	start := func(task func(context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		tasks.Go(func() { defer cancel(); task(ctx) })
		return cancel
	}
	start(f.policies.RunWithContext)
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	cache.WaitForCacheSync(ctx.Done(), f.policies.HasSynced)
	for ctx.Err() == nil {
		f.refresh(ctx, start)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

// logged is a context with which client-go writes to our log.
func (f *Fleet) logged(ctx context.Context) context.Context {
	return klog.NewContext(ctx, logr.FromSlogHandler(f.log.Handler()))
}

// starter starts a task that ends with Run at the latest.
type starter func(task func(context.Context)) (stop context.CancelFunc)

// refresh folds the policies in, reads every role, and, where this autoscaler leads, tidies up after orders and tells
// the policies' status.
func (f *Fleet) refresh(ctx context.Context, start starter) {
	f.fold(start)
	f.mu.Lock()
	roles := maps.Clone(f.roles)
	f.mu.Unlock()
	reads := errgroup.Group{}
	reads.SetLimit(8)
	for _, r := range roles {
		reads.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, f.timeout)
			defer cancel()
			f.read(ctx, r, start)
			if f.leading.Load() {
				f.verify(ctx, r)
				f.unmark(ctx, r)
			}
			return nil
		})
	}
	_ = reads.Wait() // nothing fails: a role keeps its own problem
	if f.leading.Load() {
		f.tell(ctx)
	}
}

// Pools says which pools may be scaled and what runs of them now; nil is that the policies were not read yet. It does not
// block. Starts are told once.
func (f *Fleet) Pools() map[string]Managed {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pools == nil {
		return nil
	}
	pools := make(map[string]Managed, len(f.pools))
	for id, p := range f.pools {
		m := Managed{Policy: p.policy.parsed.Spec.Policy(), State: p.policy.state, Replicas: map[decide.Role]decide.Replicas{}}
		for role, r := range p.roles {
			m.Replicas[role] = r.replicas(time.Now())
		}
		pools[id] = m
	}
	return pools
}
