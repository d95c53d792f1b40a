package kube

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// start has one ready engine of one Deployment, a policy and a Fleet that knows both.
func (w *world) start(change ...func(*Fleet)) *Fleet {
	w.Helper()
	w.deployment("engines", 1, 0)
	w.makeReady(w.living("engines", 1)...)
	w.policy("p", deploymentTarget, "")
	f := w.fleet(change...)
	w.decodes(f, "one is ready", func(r decide.Replicas) bool { return r.Ready == 1 })
	return f
}

func TestOrderOverAChangedCountIsAConflict(t *testing.T) {
	w := newWorld(t)
	f := w.start()
	// The API server changes between our last read and our write: the Fleet knows 1, and 2 holds.
	f.mu.Lock()
	s := f.pools[w.pool()].roles[decide.Decode]
	f.mu.Unlock()
	old := s.snapshot()
	w.scaleByHand("engines", 2)
	if err := f.write(w.ctx, s, old, w.order(1, 5)); !errors.Is(err, ErrConflict) {
		t.Fatalf("an order over 1 is carried out over 2: %v", err)
	}
	if r := f.Pools()[w.pool()].Replicas[decide.Decode]; r.Desired != 2 {
		t.Fatalf("it was not read anew: %+v", r)
	}
	// A count that has come back to what it was is another count all the same.
	w.scaleByHand("engines", 1)
	if err := f.write(w.ctx, s, old, w.order(1, 5)); !errors.Is(err, ErrConflict) {
		t.Fatalf("an order is carried out over the count of another time: %v", err)
	}
	if got := w.replicas("engines"); got != 1 {
		t.Fatalf("it has %d", got)
	}
	if err := f.Scale(w.ctx, w.order(2, 3)); !errors.Is(err, ErrConflict) {
		t.Fatalf("an order from 2 is carried out over 1: %v", err)
	}
	w.must(f.Scale(w.ctx, w.order(1, 3)))
}

// A Deployment's status changes all the time while replicas start: that must lose no order.
func TestOrderSurvivesChangesOfTheStatus(t *testing.T) {
	w := newWorld(t)
	f := w.start()
	f.mu.Lock()
	s := f.pools[w.pool()].roles[decide.Decode]
	f.mu.Unlock()
	old := s.snapshot()
	const patch = `{"status":{"conditions":[{"type":"Test","status":"True","reason":"Test","message":"changed"}]}}`
	_, err := w.admin.AppsV1().Deployments(w.namespace).Patch(w.ctx, "engines", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	w.must(err)
	w.must(f.write(w.ctx, s, old, w.order(1, 2)))
	if got := w.replicas("engines"); got != 2 {
		t.Fatalf("it has %d", got)
	}
}

func TestAdoptsAScaleByHand(t *testing.T) {
	w := newWorld(t)
	f := w.start()
	leading(w, f)
	w.scaleByHand("engines", 4)
	w.decodes(f, "four are ordered", func(r decide.Replicas) bool { return r.Desired == 4 && len(r.Starting) == 3 })
	w.event("ExternalChange", "from 1 to 4 by somebody else: adopted")
	w.must(f.Scale(w.ctx, w.order(4, 5)))
	w.event("Scaled", "from 4 to 5")
	// What we have ordered ourselves is nobody else's.
	list, err := w.admin.CoreV1().Events(w.namespace).List(w.ctx, metav1.ListOptions{FieldSelector: "reason=ExternalChange"})
	w.must(err)
	if len(list.Items) != 1 || list.Items[0].Count > 1 {
		t.Fatalf("our own order is somebody else's: %+v", list.Items)
	}
}

// leading has a Fleet hold the lease until the test ends.
func leading(w *world, f *Fleet) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- f.Lead(ctx, func(ctx context.Context) error { close(began); <-ctx.Done(); return nil })
	}()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("Lead: %v", err)
		}
	})
	select {
	case <-began:
	case <-w.ctx.Done():
		w.Fatal("never led")
	}
}

func TestLeavesAloneWhatAnotherAutoscalerScales(t *testing.T) {
	w := newWorld(t)
	f := w.start()
	leading(w, f)
	const hpa = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %}
spec: {minReplicas: 1, maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: @}}`
	w.create(strings.NewReplacer("%", "of-another", "@", "router").Replace(hpa))
	w.must(f.Scale(w.ctx, w.order(1, 2)))
	w.create(strings.NewReplacer("%", "rival", "@", "engines").Replace(hpa))
	// The order itself looks: no read of the Fleet needs to have come between.
	if err := f.Scale(w.ctx, w.order(2, 3)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "HorizontalPodAutoscaler/rival") {
		t.Fatalf("two scale one object: %v", err)
	}
	if got := w.replicas("engines"); got != 2 {
		t.Fatalf("it has %d", got)
	}
	w.decodes(f, "the conflict is known", func(r decide.Replicas) bool { return r.Conflict == "HorizontalPodAutoscaler/rival" })
	w.event("Conflict", "HorizontalPodAutoscaler/rival scales Deployment/engines too")
	w.eventually("the conflict is shown", func() (bool, any) {
		is, why := w.condition("p", "Conflict")
		return is == "True" && strings.Contains(why, "rival"), is + why
	})
	w.must(w.admin.AutoscalingV2().HorizontalPodAutoscalers(w.namespace).Delete(w.ctx, "rival", metav1.DeleteOptions{}))
	w.decodes(f, "the conflict is over", func(r decide.Replicas) bool { return r.Conflict == "" })
	w.must(f.Scale(w.ctx, w.order(2, 3)))
}

func TestDrainedPodsGoAndNoOthers(t *testing.T) {
	w := newWorld(t)
	w.deployment("engines", 4, 0)
	pods := w.living("engines", 4)
	w.makeReady(pods...)
	w.policy("p", deploymentTarget, "")
	f := w.fleet()
	leading(w, f)
	w.decodes(f, "four are ready", func(r decide.Replicas) bool { return r.Ready == 4 })
	// All of one age: without the cost any could go. The last by name is as likely as another.
	victim := pods[3]
	engine := fleet.EngineID(victim.Name, string(victim.UID), 0)
	// A mark that no order stands behind, as of an autoscaler that died, is taken away.
	w.must(f.setCost(w.ctx, &pods[0], `"`+markedCost+`"`))
	w.eventually("the stray mark is gone", func() (bool, any) {
		return w.cost(pods[0].Name) == "", w.cost(pods[0].Name)
	})
	// An order that fails leaves no mark.
	f.mu.Lock()
	s := f.pools[w.pool()].roles[decide.Decode]
	f.mu.Unlock()
	w.scaleByHand("engines", 4) // no change
	s.mu.Lock()
	s.reading.generation-- // as if the object had changed since
	s.reading.version = "1"
	s.mu.Unlock()
	if err := f.Scale(w.ctx, w.order(4, 3, engine)); err != nil && !errors.Is(err, ErrConflict) {
		t.Fatalf("an order over another generation: %v", err)
	} else if err != nil && w.cost(victim.Name) != "" {
		t.Fatalf("an order that failed left the mark %s", w.cost(victim.Name))
	}
	w.decodes(f, "it was read anew", func(r decide.Replicas) bool { return r.Desired == 4 })
	w.must(f.Scale(w.ctx, w.order(4, 3, engine)))
	for _, pod := range w.living("engines", 3) {
		if pod.Name == victim.Name {
			t.Fatal("the drained pod is still there")
		}
	}
	w.decodes(f, "three are left", func(r decide.Replicas) bool { return r.Desired == 3 && r.Ready == 3 })
	if got := value(t, f.metrics.wrong.WithLabelValues(w.pool(), "decode")); got != 0 {
		t.Fatalf("%v wrong victims", got)
	}
	if err := f.Scale(w.ctx, w.order(3, 2, engine)); !errors.Is(err, ErrRefused) {
		t.Fatalf("the place of an engine that is gone was taken from another: %v", err)
	}
}

// A StatefulSet ends its highest ordinals, whatever a pod costs: an order is carried out only if those have drained.
func TestStatefulSetsLoseOnlyWhatHasDrained(t *testing.T) {
	w := newWorld(t)
	w.create(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: engines}
spec:
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: engines}}
  template:
    metadata: {labels: {app: engines}, annotations: {warmpath.dev/ranks: "2"}}
    spec: {containers: [{name: engine, image: engine}]}
`)
	pods := w.living("engines", 3)
	w.makeReady(pods...)
	w.policy("p", "{apiVersion: apps/v1, kind: StatefulSet, name: engines}", "")
	f := w.fleet()
	w.decodes(f, "three are ready", func(r decide.Replicas) bool { return r.Ready == 3 })
	engine := map[string]string{}
	for _, pod := range pods {
		engine[pod.Name] = fleet.EngineID(pod.Name, string(pod.UID), 1) // its second rank
	}
	if err := f.Scale(w.ctx, w.order(3, 2, engine["engines-0"])); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "engines-2 has not drained") {
		t.Fatalf("a serving engine goes for a drained one: %v", err)
	}
	w.must(f.Scale(w.ctx, w.order(3, 1, engine["engines-2"], engine["engines-1"])))
	if left := w.living("engines", 1); left[0].Name != "engines-0" {
		t.Fatalf("%s is left", left[0].Name)
	}
}

func (w *world) cost(pod string) string {
	w.Helper()
	now, err := w.admin.CoreV1().Pods(w.namespace).Get(w.ctx, pod, metav1.GetOptions{})
	w.must(err)
	return now.Annotations[costAnnotation]
}

// Somebody deletes a pod that serves while the drained one should go: it is counted.
func TestWrongVictimsAreCounted(t *testing.T) {
	w := newWorld(t)
	set := w.create("apiVersion: test.warmpath.dev/v1\nkind: EngineSet\nmetadata: {name: engines}\nspec: {engines: 2}\n")
	set.Object["status"] = map[string]any{"selector": "app=engines", "engines": int64(2)}
	_, err := w.objects.dynamic.Resource(engineSets()).Namespace(w.namespace).UpdateStatus(w.ctx, set, metav1.UpdateOptions{})
	w.must(err)
	for _, name := range []string{"a", "b"} {
		w.create("apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", labels: {app: engines}}\nspec: {containers: [{name: c, image: c}]}\n")
	}
	pods := w.living("engines", 2)
	w.makeReady(pods...)
	w.policy("p", "{apiVersion: test.warmpath.dev/v1, kind: EngineSet, name: engines}", "")
	f := w.fleet()
	leading(w, f)
	w.decodes(f, "two are ready", func(r decide.Replicas) bool { return r.Ready == 2 })
	w.must(f.Scale(w.ctx, w.order(2, 1, fleet.EngineID("a", string(pods[0].UID), 0))))
	w.must(w.admin.CoreV1().Pods(w.namespace).Delete(w.ctx, "b", metav1.DeleteOptions{}))
	w.eventually("the wrong victim is counted", func() (bool, any) {
		got := value(t, f.metrics.wrong.WithLabelValues(w.pool(), "decode"))
		return got == 1, got
	})
	w.event("WrongVictim", "pod b went")
	w.eventually("the mark of the one that stays is taken away", func() (bool, any) { return w.cost("a") == "", nil })
}

func TestPodsThatDoNotStart(t *testing.T) {
	w := newWorld(t)
	w.deployment("engines", 3, 8) // of 8 GPUs each: two fit the node of 16, if no other test takes them
	w.policy("p", deploymentTarget, "")
	f := w.fleet()
	w.decodes(f, "one is unschedulable", func(r decide.Replicas) bool { return stuckBy(r, "Unschedulable") == 1 && len(r.Starting) == 3 })
	// What a kubelet would say of an image that cannot be pulled.
	for _, pod := range w.living("engines", 3) {
		if pod.Spec.NodeName != "" {
			const patch = `{"status":{"containerStatuses":[{"name":"engine","image":"engine","imageID":"","ready":false,"restartCount":0,"state":{"waiting":{"reason":"ImagePullBackOff"}}}]}}`
			_, err := w.admin.CoreV1().Pods(w.namespace).Patch(w.ctx, pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
			w.must(err)
			break
		}
	}
	r := w.decodes(f, "one cannot be pulled", func(r decide.Replicas) bool { return stuckBy(r, "ImagePullBackOff") == 1 })
	if stuckBy(r, "") != 1 || r.Ready != 0 {
		t.Fatalf("known are %+v", r)
	}
	w.must(f.Scale(w.ctx, w.order(3, 0))) // none of them serves
}

func stuckBy(r decide.Replicas, why string) (n int) {
	for _, s := range r.Starting {
		if s.Stuck == why {
			n++
		}
	}
	return n
}

// A watch that has stopped without a word makes what is known old, though the API server answers all else.
func TestSilentWatchMakesKnowledgeOld(t *testing.T) {
	w := newWorld(t)
	var silent atomic.Bool
	f := w.start(func(f *Fleet) { w.swallowWatches(f, &silent) })
	w.deployment("others", 1, 0)
	silent.Store(true)
	before := w.decodes(f, "known again", func(decide.Replicas) bool { return true }).Read
	// While nothing changes, the lists say that the watch still tells the truth.
	w.decodes(f, "confirmed without a word of the watch", func(r decide.Replicas) bool { return r.Read.After(before) })
	pod := w.living("engines", 1)[0]
	_, err := w.admin.CoreV1().Pods(w.namespace).Patch(w.ctx, pod.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"new":"label"}}}`), metav1.PatchOptions{})
	w.must(err)
	f.mu.Lock()
	s := f.pools[w.pool()].roles[decide.Decode]
	f.mu.Unlock()
	scaleRead := s.snapshot().at
	w.eventually("three more reads of the scale", func() (bool, any) {
		now := s.snapshot().at
		return now.Sub(scaleRead) > 3*f.every, now
	})
	first := f.Pools()[w.pool()].Replicas[decide.Decode].Read
	w.eventually("and three more", func() (bool, any) { return s.snapshot().at.Sub(scaleRead) > 6*f.every, nil })
	if r := f.Pools()[w.pool()].Replicas[decide.Decode]; !r.Read.Equal(first) {
		t.Fatalf("known as of %v, after %v, by a watch that says nothing", r.Read, first)
	}
}

// swallowWatches makes the Fleet's watches of pods say nothing more while silent is set. Lists are answered.
func (w *world) swallowWatches(f *Fleet, silent *atomic.Bool) {
	config := serviceAccount()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if err == nil && r.URL.Query().Get("watch") != "" && strings.HasSuffix(r.URL.Path, "/pods") {
				response.Body = &hush{response.Body, silent, r.Context()}
			}
			return response, err
		})
	})
	w.must(f.connect(config))
}

// An engine that was ready and is late to answer its probe, as under load, has requests: it is not one that only starts.
func TestAnEngineThatWasReadyIsNotTakenForOneThatStarts(t *testing.T) {
	w := newWorld(t)
	w.deployment("engines", 2, 0)
	pods := w.living("engines", 2)
	w.makeReady(pods...)
	w.policy("p", deploymentTarget, "")
	f := w.fleet()
	w.decodes(f, "two are ready", func(r decide.Replicas) bool { return r.Ready == 2 })
	const patch = `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`
	_, err := w.admin.CoreV1().Pods(w.namespace).Patch(w.ctx, pods[1].Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	w.must(err)
	w.decodes(f, "one is late", func(r decide.Replicas) bool { return r.Ready == 1 && len(r.Starting) == 1 })
	if err := f.Scale(w.ctx, w.order(2, 1)); !errors.Is(err, ErrRefused) {
		t.Fatalf("it is taken: %v", err)
	}
	if got := w.replicas("engines"); got != 2 {
		t.Fatalf("it has %d", got)
	}
}
