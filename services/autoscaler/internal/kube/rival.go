package kube

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// rivalKinds are the autoscalers that name what they scale in spec.scaleTargetRef. KEDA takes a reference without a kind
// for a Deployment. Where a cluster does not know a kind, nobody scales by it.
func rivalKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"},
		{Group: "keda.sh", Version: "v1alpha1", Kind: "ScaledObject"},
	}
}

// rival names another autoscaler that scales the object; "" is nobody.
func (f *Fleet) rival(ctx context.Context, s *scaled) (string, error) {
	for _, kind := range rivalKinds() {
		resource, err := f.kinds.resource(kind)
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		list, err := f.dynamic.Resource(resource).Namespace(s.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", fmt.Errorf("list other autoscalers: %w", err)
		}
		for i := range list.Items {
			if s.isTargetOf(&list.Items[i]) {
				return kind.Kind + "/" + list.Items[i].GetName(), nil
			}
		}
	}
	return "", nil
}

func (s *scaled) isTargetOf(rival *unstructured.Unstructured) bool {
	reference, _, _ := unstructured.NestedStringMap(rival.Object, "spec", "scaleTargetRef")
	kind, group := reference["kind"], schema.FromAPIVersionAndKind(reference["apiVersion"], "").Group
	if kind == "" {
		kind = "Deployment"
	}
	if reference["apiVersion"] == "" {
		group = s.kind().Group // without a word, as far as it can be ours
	}
	return kind == s.target.Kind && group == s.kind().Group && reference["name"] == s.target.Name
}

// sawRival keeps who else scales the object, and says when that changes.
func (f *Fleet) sawRival(s *scaled, rival string) {
	s.mu.Lock()
	was := s.rival
	s.rival = rival
	s.mu.Unlock()
	if was == rival {
		return
	}
	f.metrics.rival.WithLabelValues(s.pool, string(s.role)).Set(map[bool]float64{true: 1}[rival != ""])
	f.log.Warn("other autoscaler of the same object changed", "pool", s.pool, "role", s.role, "target", s.target, "was", was, "now", rival)
	if rival != "" && f.leading.Load() {
		f.events.say(s.key, warning, "Conflict", "%s scales %s too: it is left alone", rival, s.target)
	}
}
