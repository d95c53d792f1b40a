package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/restmapper"
)

// kinds knows which resource a kind is. Safe for concurrent use.
type kinds struct {
	mapper *restmapper.DeferredDiscoveryRESTMapper
	mu     sync.Mutex
	asked  time.Time // when the cluster was last asked for its kinds, because one was missing
}

// resource finds the resource of a kind. A cluster is asked for new kinds at most twice a minute.
func (k *kinds) resource(kind schema.GroupVersionKind) (schema.GroupVersionResource, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, err := k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) && time.Since(k.asked) > 30*time.Second {
		k.asked = time.Now()
		k.mapper.Reset()
		m, err = k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("find the kind %s: %w", kind, err)
	}
	return m.Resource, nil
}

// scaled is an object whose scale is ours, for one role of a pool. What is below mu is shared by Run and the caller of Scale.
type scaled struct {
	key
	pods *pods

	mu       sync.Mutex
	reading  reading
	problem  string // why it was not read, or cannot be scaled; "" is nothing
	rival    string // who else scales it
	missing  time.Time
	ordered  int // what we asked for last; -1 is nothing yet
	pursuit  *pursuit
	resource schema.GroupVersionResource
}

// reading is what the object was at one time.
type reading struct {
	at         time.Time // before it was asked for
	uid        types.UID
	generation int64 // grows with each change of what is wanted, and with nothing else
	version    string
	replicas   int
	selector   string
}

func newScaled(k key) *scaled { return &scaled{key: k, pods: &pods{}, ordered: -1} }

func (s *scaled) kind() schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(s.target.APIVersion, s.target.Kind)
}

// snapshot is the last reading.
func (s *scaled) snapshot() reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reading
}

// read reads the scale, who else writes it, and, by a list, whether the watch of its pods is right.
func (f *Fleet) read(ctx context.Context, s *scaled, start starter) {
	now, err := f.readScale(ctx, s)
	if err == nil {
		var rival string
		if rival, err = f.rival(ctx, s); err == nil {
			f.sawRival(s, rival)
		}
	}
	if err == nil {
		err = f.confirmPods(ctx, s, now.selector, start)
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.problem
	if s.problem = ""; err != nil {
		s.problem = err.Error()
	}
	if s.problem != "" && was == "" {
		f.log.Warn("cannot read what is scaled", "pool", s.pool, "role", s.role, "target", s.target, "err", err)
	}
}

// readScale reads the count and what it is of. The generation is read first: if the object changes between the two
// reads, the count is newer than the generation, and an order that is made from it is refused rather than let through.
func (f *Fleet) readScale(ctx context.Context, s *scaled) (reading, error) {
	now := reading{at: time.Now()}
	resource, err := f.kinds.resource(s.kind())
	if err != nil {
		return now, err
	}
	object, err := f.metadata.Resource(resource).Namespace(s.namespace).Get(ctx, s.target.Name, metav1.GetOptions{})
	if err != nil {
		return now, fmt.Errorf("read %s: %w", s.target, err)
	}
	scale, err := f.dynamic.Resource(resource).Namespace(s.namespace).Get(ctx, s.target.Name, metav1.GetOptions{}, "scale")
	if err != nil {
		return now, fmt.Errorf("read the scale of %s: %w", s.target, err)
	}
	replicas, _, err := unstructured.NestedInt64(scale.Object, "spec", "replicas")
	if err != nil {
		return now, fmt.Errorf("read the scale of %s: %w", s.target, err)
	}
	selector, _, err := unstructured.NestedString(scale.Object, "status", "selector")
	if err != nil || selector == "" {
		return now, fmt.Errorf("read the scale of %s: it has no selector for pods (%w)", s.target, errors.Join(err, errSelector))
	}
	now.uid, now.generation = object.GetUID(), object.GetGeneration()
	now.version, now.replicas, now.selector = scale.GetResourceVersion(), int(replicas), selector
	f.adopt(s, resource, now)
	return now, nil
}

var errSelector = errors.New("status.selector is missing")

// adopt takes a reading, unless a later one is there, and says where somebody else has scaled the object.
func (f *Fleet) adopt(s *scaled, resource schema.GroupVersionResource, now reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.reading
	if was.uid == now.uid && now.generation < was.generation {
		return
	}
	s.reading, s.resource = now, resource
	foreign := was.uid == now.uid && was.replicas != now.replicas && now.replicas != s.ordered
	if was.uid != now.uid {
		s.ordered = -1
	}
	if foreign {
		s.ordered = -1
		f.metrics.foreign.WithLabelValues(s.pool, string(s.role)).Inc()
		f.log.Info("adopted a scale that is not ours", "pool", s.pool, "role", s.role, "target", s.target, "was", was.replicas, "now", now.replicas)
		if f.leading.Load() {
			f.events.say(s.key, normal, "ExternalChange", "%s was scaled from %d to %d by somebody else: adopted", s.target, was.replicas, now.replicas)
		}
	}
}
