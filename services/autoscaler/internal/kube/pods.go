package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// ranksAnnotation of a pod says how many data-parallel ranks, each an engine, it runs.
const ranksAnnotation = "warmpath.dev/ranks"

// pods is the watch of one role's pods, and what is known of its truth. The zero pods watches nothing.
type pods struct {
	mu        sync.Mutex
	selector  string
	cancel    context.CancelFunc
	store     cache.Store
	listed    *listing
	confirmed time.Time          // the watch has all that was so then
	ready     map[types.UID]bool // that were ready once; nil until first confirmed
}

// listing is a consistent list of the pods, by which the watch is judged.
type listing struct {
	at       time.Time // before it was asked for
	version  string
	versions map[types.UID]string
}

func (p *pods) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
	p.selector, p.cancel, p.store, p.listed, p.confirmed = "", nil, nil, nil, time.Time{}
}

// confirmPods lists the names and versions of the pods and compares them with the watch. A watch that has stopped
// without a word, behind a proxy or a partition, is found out by the first change that it has not told.
func (f *Fleet) confirmPods(ctx context.Context, s *scaled, selector string, start starter) error {
	f.watchPods(s, selector, start)
	now := listing{at: time.Now(), versions: make(map[types.UID]string)}
	resource := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	list, err := f.metadata.Resource(resource).Namespace(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return fmt.Errorf("list pods of %s: %w", s.target, err)
	}
	now.version = list.ResourceVersion
	for i := range list.Items {
		now.versions[list.Items[i].UID] = list.Items[i].ResourceVersion
	}
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	s.pods.listed = &now
	s.pods.judge()
	return nil
}

// watchPods watches the pods of a selector, in place of those of another.
func (f *Fleet) watchPods(s *scaled, selector string, start starter) {
	s.pods.mu.Lock()
	same := s.pods.selector == selector
	s.pods.mu.Unlock()
	if same {
		return
	}
	s.pods.stop()
	client := f.core.Pods(s.namespace)
	informer := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = selector
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = selector
			return client.Watch(ctx, o)
		},
	}, &corev1.Pod{}, 0, cache.Indexers{})
	_ = informer.SetTransform(func(object any) (any, error) { // fails only once started
		if pod, ok := object.(*corev1.Pod); ok {
			pod.ManagedFields, pod.Spec = nil, corev1.PodSpec{}
		}
		return object, nil
	})
	stop := start(informer.RunWithContext)
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	s.pods.selector, s.pods.cancel, s.pods.store = selector, stop, informer.GetStore()
}

// judge says until when the watch has told all: it must have every pod of the listing in that version or a later one,
// and no pod that the listing has not, but for newer ones.
func (p *pods) judge() {
	if p.listed == nil || p.store == nil || !p.listed.at.After(p.confirmed) {
		return
	}
	found := 0
	for _, pod := range p.all() {
		least, listed := p.listed.versions[pod.UID]
		if !listed {
			least = p.listed.version
		}
		order, err := resourceversion.CompareResourceVersion(pod.ResourceVersion, least)
		if err != nil || order < 0 || order == 0 && !listed {
			return
		}
		if listed {
			found++
		}
	}
	if found == len(p.listed.versions) {
		p.confirmed = p.listed.at
	}
}

// all are the pods that the watch knows, by name.
func (p *pods) all() []*corev1.Pod {
	if p.store == nil {
		return nil
	}
	var list []*corev1.Pod
	for _, object := range p.store.List() {
		list = append(list, object.(*corev1.Pod))
	}
	slices.SortFunc(list, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// living are those that are neither going nor done.
func (p *pods) living() []*corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(p.all(), func(pod *corev1.Pod) bool {
		return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	})
}

// notCreated is for how long a replica may be ordered without a pod before that is a problem.
const notCreated = time.Minute

// replicas is what runs of the role.
func (s *scaled) replicas(now time.Time) decide.Replicas {
	confirmed := s.pods.confirmedAt() // first: what is read after it is at least as new
	living := s.pods.living()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := decide.Replicas{Desired: s.reading.replicas, Conflict: s.rival}
	s.pods.count(living, &r)
	if r.Read = s.reading.at; confirmed.Before(r.Read) {
		r.Read = confirmed
	}
	if len(living) >= r.Desired {
		s.missing = time.Time{}
		return r
	}
	if s.missing.IsZero() {
		s.missing = now
	}
	stuck := ""
	if now.Sub(s.missing) > notCreated {
		stuck = "NotCreated" // a quota, an admission webhook, or no controller
	}
	for range r.Desired - len(living) {
		r.Starting = append(r.Starting, decide.Starting{Created: s.missing, Stuck: stuck})
	}
	return r
}

func (p *pods) confirmedAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge()
	return p.confirmed
}

// count sorts pods into ready and starting, and tells the starts of those that are ready for the first time. Those that
// were ready when we came are not told: they may have started under other circumstances.
func (p *pods) count(living []*corev1.Pod, r *decide.Replicas) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.ready == nil
	seen := make(map[types.UID]bool, len(living))
	for _, pod := range living {
		since, ready := readySince(pod)
		if !ready {
			r.Starting = append(r.Starting, decide.Starting{Created: pod.CreationTimestamp.Time, Stuck: stuck(pod)})
			seen[pod.UID] = p.ready[pod.UID]
			continue
		}
		r.Ready++
		if !first && !p.ready[pod.UID] {
			r.Starts = append(r.Starts, since.Sub(pod.CreationTimestamp.Time))
		}
		seen[pod.UID] = true
	}
	if !p.confirmed.IsZero() {
		p.ready = seen
	}
}

func readySince(pod *corev1.Pod) (time.Time, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// serves says whether requests may be under way in a pod: it is ready, or was and may be again, as under a load that makes
// it late to answer its probe.
func (p *pods) serves(pod *corev1.Pod) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ready := readySince(pod)
	return ready || p.ready[pod.UID] && stuck(pod) == ""
}

// stuck says why a pod will not become ready by itself; "" is that it may.
func stuck(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return c.Reason
		}
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil {
			switch w.Reason {
			case "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError":
				return w.Reason
			}
		}
	}
	return ""
}

// byEngine finds the pods that run engines.
func byEngine(living []*corev1.Pod) map[string]*corev1.Pod {
	engines := make(map[string]*corev1.Pod, len(living))
	for _, pod := range living {
		ranks, err := strconv.Atoi(pod.Annotations[ranksAnnotation])
		if err != nil || ranks < 1 || ranks > 1024 {
			ranks = 1
		}
		for rank := range ranks {
			engines[fleet.EngineID(pod.Name, string(pod.UID), rank)] = pod
		}
	}
	return engines
}
