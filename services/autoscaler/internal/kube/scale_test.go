package kube

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func TestScalesADeploymentUpAndDown(t *testing.T) {
	w := newWorld(t)
	w.deployment("engines", 1, 0)
	w.makeReady(w.living("engines", 1)...)
	w.policy("p", deploymentTarget, "")
	f := w.fleet()
	r := w.decodes(f, "one is ready", func(r decide.Replicas) bool { return r.Ready == 1 })
	if r.Desired != 1 || len(r.Starting) != 0 || len(r.Starts) != 0 {
		t.Fatalf("known are %+v", r)
	}
	w.must(f.Scale(w.ctx, w.order(1, 3)))
	if got := w.replicas("engines"); got != 3 {
		t.Fatalf("the Deployment has %d", got)
	}
	if r := f.Pools()[w.pool()].Replicas[decide.Decode]; r.Desired != 3 || r.Ready+len(r.Starting) != 3 {
		t.Fatalf("after the order %+v", r)
	}
	w.makeReady(w.living("engines", 3)...)
	starts := 0
	w.decodes(f, "three are ready, two starts are told", func(r decide.Replicas) bool {
		starts += len(r.Starts)
		return r.Ready == 3 && starts == 2
	})
	// Two that serve must not go: only what has drained.
	if err := f.Scale(w.ctx, w.order(3, 1)); !errors.Is(err, ErrRefused) {
		t.Fatalf("engines that serve are taken: %v", err)
	}
	w.event("Refused", "2 would go that serve")
	pods := w.living("engines", 3)
	w.must(f.Scale(w.ctx, w.order(3, 1, fleet.EngineID(pods[0].Name, string(pods[0].UID), 0), fleet.EngineID(pods[2].Name, string(pods[2].UID), 0))))
	left := w.living("engines", 1)
	if left[0].Name != pods[1].Name {
		t.Fatalf("%s is left, and %s had not drained", left[0].Name, pods[1].Name)
	}
	w.event("Scaled", "from 3 to 1: test")
}

func TestScalesAnyKindThatHasAScale(t *testing.T) {
	w := newWorld(t)
	set := w.create("apiVersion: test.warmpath.dev/v1\nkind: EngineSet\nmetadata: {name: engines}\nspec: {engines: 2}\n")
	set.Object["status"] = map[string]any{"selector": "app=engines", "engines": int64(0)}
	client := w.objects.dynamic.Resource(engineSets()).Namespace(w.namespace)
	_, err := client.UpdateStatus(w.ctx, set, metav1.UpdateOptions{})
	w.must(err)
	w.policy("p", "{apiVersion: test.warmpath.dev/v1, kind: EngineSet, name: engines}", "")
	f := w.fleet()
	w.decodes(f, "two are ordered", func(r decide.Replicas) bool { return r.Desired == 2 && len(r.Starting) == 2 })
	w.must(f.Scale(w.ctx, w.order(2, 5)))
	w.must(f.Scale(w.ctx, w.order(5, 4))) // none of them runs: nobody needs to drain
	now, err := client.Get(w.ctx, "engines", metav1.GetOptions{})
	w.must(err)
	if n, _, _ := unstructured.NestedInt64(now.Object, "spec", "engines"); n != 4 {
		t.Fatalf("it has %d", n)
	}
}
