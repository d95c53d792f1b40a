package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// What marks a pod as the one that a ReplicaSet should delete first. Only pods that carry our value are unmarked.
const (
	costAnnotation = "controller.kubernetes.io/pod-deletion-cost"
	markedCost     = "-2000000000"
)

// pursuit is an order that took engines away, until it is seen which went.
type pursuit struct {
	victims  map[types.UID]bool
	others   map[types.UID]string // that were ready and had not drained, by name
	deadline time.Time
}

// Scale carries out an order. It is refused where the object is not managed or cannot be read, where somebody else scales
// it, and where engines would go that serve and have not drained. It costs four requests, and one for each victim.
func (f *Fleet) Scale(ctx context.Context, o Order) error {
	f.mu.Lock()
	var s *scaled
	if p := f.pools[o.Pool]; p != nil {
		s = p.roles[o.Role]
	}
	f.mu.Unlock()
	if s == nil {
		return fmt.Errorf("scale %s of pool %s: %w: no ScalingPolicy in force has it", o.Role, o.Pool, ErrRefused)
	}
	err := f.scale(ctx, s, o)
	outcome := "done"
	switch {
	case errors.Is(err, ErrConflict):
		outcome = "conflict"
	case errors.Is(err, ErrRefused):
		outcome = "refused"
	case err != nil:
		outcome = "failed"
	}
	f.metrics.orders.WithLabelValues(o.Pool, string(o.Role), outcome).Inc()
	if err != nil {
		if outcome != "conflict" {
			f.events.say(s.key, warning, strings.ToUpper(outcome[:1])+outcome[1:], "%s", err)
		}
		return fmt.Errorf("scale %s from %d to %d: %w", s.target, o.From, o.To, err)
	}
	f.events.say(s.key, normal, "Scaled", "%s %s from %d to %d: %s", o.Role, s.target, o.From, o.To, o.Why)
	return nil
}

func (f *Fleet) scale(ctx context.Context, s *scaled, o Order) error {
	if f.deposed.Load() {
		return fmt.Errorf("%w: %w", ErrRefused, errDeposed)
	}
	now := s.snapshot()
	if now.at.IsZero() {
		return fmt.Errorf("%w: %s has not been read yet", ErrRefused, s.target)
	}
	if now.replicas != o.From {
		return fmt.Errorf("%w: it has %d", ErrConflict, now.replicas)
	}
	rival, err := f.rival(ctx, s)
	if err != nil {
		return err
	}
	if f.sawRival(s, rival); rival != "" {
		return fmt.Errorf("%w: %s scales it too", ErrRefused, rival)
	}
	if o.To >= o.From {
		return f.write(ctx, s, now, o)
	}
	victims, err := s.pursue(o)
	if err != nil {
		return err
	}
	if err = f.mark(ctx, victims); err == nil {
		err = f.write(ctx, s, now, o)
	}
	if err != nil {
		s.mu.Lock()
		s.pursuit = nil // so that those that were marked are unmarked
		s.mu.Unlock()
		f.unmark(ctx, s)
	}
	return err
}

// write puts the count over the one that was read: the API server refuses it if the object has changed since. A change
// of its status alone, which leaves the generation as it was, is no reason to lose an order.
func (f *Fleet) write(ctx context.Context, s *scaled, from reading, o Order) error {
	s.mu.Lock()
	s.ordered = o.To
	resource := s.resource
	s.mu.Unlock()
	client := f.dynamic.Resource(resource).Namespace(s.namespace)
	const tries = 5
	for range tries {
		scale := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "autoscaling/v1", "kind": "Scale",
			"metadata": map[string]any{
				"name": s.target.Name, "namespace": s.namespace, "uid": string(from.uid), "resourceVersion": from.version,
			},
			"spec": map[string]any{"replicas": int64(o.To)},
		}}
		_, err := client.Update(ctx, scale, metav1.UpdateOptions{}, "scale")
		if err != nil && !apierrors.IsConflict(err) {
			return err
		}
		now, again := f.readScale(ctx, s)
		switch {
		case err == nil:
			return nil // if it could not be read again, the next read will tell
		case again != nil:
			return fmt.Errorf("%w, and then: %w", ErrConflict, again)
		case now.uid != from.uid || now.generation != from.generation || now.replicas != o.From:
			return fmt.Errorf("%w: it has %d", ErrConflict, now.replicas)
		}
		from = now
	}
	return fmt.Errorf("%w: its status changes all the time", ErrConflict)
}

// pursue finds the pods of the victims, and refuses an order that would take others which serve.
func (s *scaled) pursue(o Order) ([]*corev1.Pod, error) {
	living := s.pods.living()
	engines := byEngine(living)
	p := &pursuit{victims: map[types.UID]bool{}, others: map[types.UID]string{}, deadline: time.Now().Add(2 * time.Minute)}
	var victims []*corev1.Pod
	for _, engine := range o.Victims {
		pod := engines[engine]
		if pod == nil {
			return nil, fmt.Errorf("%w: no pod of it runs engine %s", ErrRefused, engine)
		}
		if !p.victims[pod.UID] {
			victims = append(victims, pod)
		}
		p.victims[pod.UID] = true
	}
	idle := o.From - len(living) // replicas that have no pod yet
	for _, pod := range living {
		if !s.pods.serves(pod) && !p.victims[pod.UID] {
			idle++
		} else if !p.victims[pod.UID] {
			p.others[pod.UID] = pod.Name
		}
	}
	if going := o.From - o.To; going > len(victims)+max(idle, 0) {
		return nil, fmt.Errorf("%w: %d would go that serve and have not drained", ErrRefused, going-len(victims)-max(idle, 0))
	}
	if name := s.lastOrdinal(living, p, o.From-o.To); name != "" {
		return nil, fmt.Errorf("%w: a %s ends its highest ordinals, and %s has not drained", ErrRefused, s.target.Kind, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pursuit = p
	return victims, nil
}

// lastOrdinal is, of an object that ends its highest ordinals whatever a pod's deletion cost, the first of the n highest
// that serves and has not drained; "" is none.
func (s *scaled) lastOrdinal(living []*corev1.Pod, p *pursuit, n int) string {
	if s.target.Kind != "StatefulSet" && s.target.Kind != "LeaderWorkerSet" {
		return ""
	}
	ordinal := func(pod *corev1.Pod) int {
		i, err := strconv.Atoi(pod.Name[strings.LastIndexByte(pod.Name, '-')+1:])
		if err != nil {
			return -1
		}
		return i
	}
	slices.SortFunc(living, func(a, b *corev1.Pod) int { return ordinal(b) - ordinal(a) })
	for _, pod := range living[:min(n, len(living))] {
		if p.others[pod.UID] != "" {
			return pod.Name
		}
	}
	return ""
}

// mark makes the victims those that a ReplicaSet deletes first among its ready pods.
func (f *Fleet) mark(ctx context.Context, victims []*corev1.Pod) error {
	for _, pod := range victims {
		if err := f.setCost(ctx, pod, `"`+markedCost+`"`); err != nil {
			return fmt.Errorf("mark pod %s to go: %w", pod.Name, err)
		}
	}
	return nil
}

func (f *Fleet) setCost(ctx context.Context, pod *corev1.Pod, value string) error {
	patch := fmt.Sprintf(`{"metadata":{"uid":%q,"annotations":{%q:%s}}}`, pod.UID, costAnnotation, value)
	_, err := f.core.Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// unmark takes our mark from pods that no order pursues: of orders that failed, of engines that were called back, and of
// an autoscaler that died.
func (f *Fleet) unmark(ctx context.Context, s *scaled) {
	s.mu.Lock()
	pursued := s.pursuit
	s.mu.Unlock()
	for _, pod := range s.pods.living() {
		if pod.Annotations[costAnnotation] != markedCost || pursued != nil && pursued.victims[pod.UID] {
			continue
		}
		if err := f.setCost(ctx, pod, "null"); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			f.log.Warn("cannot unmark a pod; a ReplicaSet would delete it first", "pod", pod.Name, "err", err)
		}
	}
}

// verify looks which pods went after an order. That another than the drained one went is the ReplicaSet's right, and
// may have cost requests: it is counted and said.
func (f *Fleet) verify(_ context.Context, s *scaled) {
	living := map[types.UID]bool{}
	for _, pod := range s.pods.living() {
		living[pod.UID] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pursuit
	if p == nil || s.pods.confirmedAt().IsZero() {
		return
	}
	left := 0
	for uid := range p.victims {
		if living[uid] {
			left++
		}
	}
	for uid, name := range p.others {
		if left > 0 && !living[uid] {
			delete(p.others, uid)
			left--
			f.metrics.wrong.WithLabelValues(s.pool, string(s.role)).Inc()
			f.log.Warn("another engine went than the one that had drained", "pool", s.pool, "role", s.role, "pod", name)
			f.events.say(s.key, warning, "WrongVictim", "pod %s went, and had not drained", name)
		}
	}
	if left == 0 || time.Now().After(p.deadline) {
		s.pursuit = nil
	}
}
