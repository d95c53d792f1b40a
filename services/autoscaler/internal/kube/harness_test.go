package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/kube/controlplane"
)

// The control plane of this package's tests; nil where its program is not built, and then absent says so.
var (
	plane  *controlplane.Plane
	absent error
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	binary, err := controlplane.Binary()
	if err != nil {
		if controlplane.Required() {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		absent = err
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "warmpath-kube-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	plane, err = controlplane.Start(ctx, binary, dir)
	defer plane.Stop()
	if err == nil {
		err = furnish(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// furnish installs what deploy/ has, a kind of our own that has a scale, and a node with 16 GPUs.
func furnish(ctx context.Context) error {
	const root = "../../../../"
	for _, file := range []string{root + "deploy/crd/scalingpolicies.yaml", root + "deploy/base/autoscaler/rbac.yaml", "testdata/engineset.yaml"} {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.Contains(string(data), "kind: ClusterRole\n") {
			data = append([]byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: warmpath}\n---\n"), data...)
		}
		if err := kubectlApply(ctx, data); err != nil {
			return fmt.Errorf("apply %s: %w", file, err)
		}
	}
	for _, crd := range []string{"scalingpolicies.warmpath.dev", "enginesets.test.warmpath.dev"} {
		if out, err := plane.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd/"+crd).CombinedOutput(); err != nil {
			return fmt.Errorf("wait for %s: %w: %s", crd, err, out)
		}
	}
	client, err := kubernetes.NewForConfig(plane.Admin)
	if err != nil {
		return err
	}
	node, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpus"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Spec.Taints = nil // the admission plugin's, which the controller of nodes would remove
	if node, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	node.Status.Capacity = corev1.ResourceList{
		"cpu": resource.MustParse("1000"), "memory": resource.MustParse("1Ti"), "pods": resource.MustParse("1000"),
		"nvidia.com/gpu": resource.MustParse("16"),
	}
	node.Status.Allocatable = node.Status.Capacity
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	_, err = client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func kubectlApply(ctx context.Context, data []byte) error {
	cmd := plane.Kubectl(ctx, "apply", "-f", "-")
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// world is one test's namespace, with an admin's clients.
type world struct {
	*testing.T
	ctx       context.Context
	namespace string
	admin     *kubernetes.Clientset
	objects   *Fleet // for its dynamic client and mapper; never run
}

var worlds atomic.Int64

func newWorld(t *testing.T) *world {
	t.Helper()
	if absent != nil {
		t.Skip(absent)
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	config := rest.CopyConfig(plane.Admin)
	config.QPS = -1
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := New(Config{REST: config, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(objects.events.stop)
	w := &world{T: t, ctx: ctx, namespace: fmt.Sprintf("w%d", worlds.Add(1)), admin: admin, objects: objects}
	_, err = admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{})
	w.must(err)
	w.permitLease()
	return w
}

// permitLease gives the autoscaler in this namespace the lease that deploy/ gives it in its own.
func (w *world) permitLease() {
	role, err := w.admin.RbacV1().Roles("warmpath").Get(w.ctx, "warmpath-autoscaler-lease", metav1.GetOptions{})
	w.must(err)
	binding, err := w.admin.RbacV1().RoleBindings("warmpath").Get(w.ctx, "warmpath-autoscaler-lease", metav1.GetOptions{})
	w.must(err)
	_, err = w.admin.RbacV1().Roles(w.namespace).Create(w.ctx, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name}, Rules: role.Rules,
	}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.admin.RbacV1().RoleBindings(w.namespace).Create(w.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: binding.Name}, RoleRef: binding.RoleRef, Subjects: binding.Subjects,
	}, metav1.CreateOptions{})
	w.must(err)
	client, err := kubernetes.NewForConfig(serviceAccount())
	w.must(err)
	w.eventually("the API server knows of the right", func() (bool, any) {
		_, err := client.CoordinationV1().Leases(w.namespace).Get(w.ctx, leaseName, metav1.GetOptions{})
		return !apierrors.IsForbidden(err), err
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// eventually polls until what holds, which says what it sees.
func (w *world) eventually(what string, holds func() (bool, any)) {
	w.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		ok, seen := holds()
		if ok {
			return
		}
		select {
		case <-deadline:
			w.Fatalf("not in 30 s: %s; last seen: %v", what, seen)
		case <-tick.C:
		}
	}
}

// create makes an object of YAML in the test's namespace.
func (w *world) create(text string) *unstructured.Unstructured {
	w.Helper()
	object, err := w.tryCreate(text)
	w.must(err)
	return object
}

func (w *world) tryCreate(text string) (*unstructured.Unstructured, error) {
	w.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	w.must(err)
	object := &unstructured.Unstructured{}
	w.must(json.Unmarshal(data, object))
	resource, err := w.objects.kinds.resource(object.GroupVersionKind())
	w.must(err)
	return w.objects.dynamic.Resource(resource).Namespace(w.namespace).Create(w.ctx, object, metav1.CreateOptions{})
}

func (w *world) policyNow(name string) *unstructured.Unstructured {
	w.Helper()
	object, err := w.objects.dynamic.Resource(policyResource()).Namespace(w.namespace).Get(w.ctx, name, metav1.GetOptions{})
	w.must(err)
	return object
}

// condition is the status and message of a policy's condition.
func (w *world) condition(policy, kind string) (string, string) {
	for _, c := range conditionsOf(w.policyNow(policy)) {
		if c.Type == kind {
			return string(c.Status), c.Message
		}
	}
	return "", ""
}

// deployment makes a Deployment of engines, each with so many GPUs. Without a kubelet pods that are deleted stay, and stay
// on their node, for good: those with GPUs have no grace, so that others get theirs.
func (w *world) deployment(name string, replicas, gpus int) {
	w.Helper()
	w.create(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: %[4]d
      containers:
        - {name: engine, image: engine, resources: {limits: {nvidia.com/gpu: %[3]d}}}
`, name, replicas, gpus, map[bool]int{true: 0, false: 30}[gpus > 0]))
}

func (w *world) pods(app string) []corev1.Pod {
	w.Helper()
	list, err := w.admin.CoreV1().Pods(w.namespace).List(w.ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	w.must(err)
	return list.Items
}

// living are the pods of an app that do not go, once there are so many.
func (w *world) living(app string, n int) []corev1.Pod {
	w.Helper()
	var living []corev1.Pod
	w.eventually(fmt.Sprintf("%d pods of %s", n, app), func() (bool, any) {
		living = nil
		for _, pod := range w.pods(app) {
			if pod.DeletionTimestamp == nil {
				living = append(living, pod)
			}
		}
		return len(living) == n, len(living)
	})
	return living
}

// makeReady does what a kubelet would.
func (w *world) makeReady(pods ...corev1.Pod) {
	w.Helper()
	for _, pod := range pods {
		w.eventually("pod is scheduled", func() (bool, any) {
			now, err := w.admin.CoreV1().Pods(w.namespace).Get(w.ctx, pod.Name, metav1.GetOptions{})
			return err == nil && now.Spec.NodeName != "", err
		})
		patch := fmt.Sprintf(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`,
			time.Now().UTC().Format(time.RFC3339))
		_, err := w.admin.CoreV1().Pods(w.namespace).Patch(w.ctx, pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		w.must(err)
	}
}

func (w *world) replicas(name string) int {
	w.Helper()
	scale, err := w.admin.AppsV1().Deployments(w.namespace).GetScale(w.ctx, name, metav1.GetOptions{})
	w.must(err)
	return int(scale.Spec.Replicas)
}

// policy makes a ScalingPolicy of one role, of a model that is the namespace's own.
func (w *world) policy(name, target, more string) {
	w.Helper()
	w.create(fmt.Sprintf(`
apiVersion: warmpath.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: %s}
spec:
  pool: pool-%s
  mode: "on"
  roles:
    decode: {target: %s, max: 8, gpus: 1}
%s`, name, w.namespace, target, more))
}

func (w *world) pool() string { return "pool-" + w.namespace }

const deploymentTarget = "{apiVersion: apps/v1, kind: Deployment, name: engines}"

// serviceAccount is what deploy/ makes for the autoscaler: whatever a Fleet does in these tests, it does with no other right.
func serviceAccount() *rest.Config {
	config := rest.CopyConfig(plane.Admin)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:warmpath:warmpath-autoscaler",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:warmpath", "system:authenticated"},
	}
	return config
}

// fleet runs a Fleet until the test ends, and fails the test if it is denied anything.
func (w *world) fleet(change ...func(*Fleet)) *Fleet {
	w.Helper()
	config := serviceAccount()
	denied := &refusals{test: w.T}
	config.Wrap(denied.wrap)
	f, err := New(Config{
		REST: config, Namespace: w.namespace, Policies: w.namespace, Instance: fmt.Sprint("fleet-", worlds.Add(1)),
		Log: slog.New(slog.NewTextHandler(w.log(), nil)), Metrics: prometheus.NewRegistry(),
	})
	w.must(err)
	f.every = 200 * time.Millisecond
	for _, c := range change {
		c(f)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
	return f
}

// decodes are the replicas of the one role, as soon as they are known and hold what is asked.
func (w *world) decodes(f *Fleet, what string, holds func(decide.Replicas) bool) decide.Replicas {
	w.Helper()
	var r decide.Replicas
	w.eventually(what, func() (bool, any) {
		r = f.Pools()[w.pool()].Replicas[decide.Decode]
		return !r.Read.IsZero() && holds(r), r
	})
	return r
}

func (w *world) order(from, to int, victims ...string) Order {
	return Order{Pool: w.pool(), Role: decide.Decode, From: from, To: to, Victims: victims, Why: "test"}
}

// event waits for an Event of a reason.
func (w *world) event(reason, text string) {
	w.Helper()
	w.eventually("Event "+reason+" with "+text, func() (bool, any) {
		list, err := w.admin.CoreV1().Events(w.namespace).List(w.ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
		w.must(err)
		for _, e := range list.Items {
			if strings.Contains(e.Message, text) && e.InvolvedObject.Kind == "ScalingPolicy" {
				return true, nil
			}
		}
		return false, list.Items
	})
}

// scaleByHand is `kubectl scale`.
func (w *world) scaleByHand(name string, to int) {
	w.Helper()
	out, err := plane.Kubectl(w.ctx, "-n", w.namespace, "scale", "deployment/"+name, fmt.Sprintf("--replicas=%d", to)).CombinedOutput()
	if err != nil {
		w.Fatalf("%v: %s", err, out)
	}
}

// engineSets is the resource of testdata/engineset.yaml.
func engineSets() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "test.warmpath.dev", Version: "v1", Resource: "enginesets"}
}
