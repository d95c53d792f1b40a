package kube

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// The API server refuses what scalingpolicy refuses, before anybody has to read a log.
func TestAPIServerRefusesBadPolicies(t *testing.T) {
	w := newWorld(t)
	const one = "{target: {apiVersion: apps/v1, kind: Deployment, name: a}}"
	for name, c := range map[string]struct{ spec, want string }{
		"neither model nor pool": {"roles: {both: " + one + "}", "one of model and pool"},
		"model and pool":         {"model: m, pool: p, roles: {both: " + one + "}", "one of model and pool"},
		"no roles":               {"model: m", "roles: Required"},
		"no role":                {"model: m, roles: {}", "at least 1"},
		"unknown role":           {"model: m, roles: {encode: " + one + "}", "prefill, decode or both"},
		"no target":              {"model: m, roles: {both: {min: 1}}", "target: Required"},
		"min over max":           {"model: m, roles: {both: {min: 3, max: 2, target: {apiVersion: v1, kind: K, name: a}}}", "more than max"},
		"zero without idleAfter": {"model: m, roles: {both: {min: 0, target: {apiVersion: v1, kind: K, name: a}}}", "set idleAfter"},
		"negative":               {"model: m, roles: {both: {min: -1, target: {apiVersion: v1, kind: K, name: a}}}", "greater than or equal to 0"},
		"unknown mode":           {"model: m, mode: auto, roles: {both: " + one + "}", "Unsupported value"},
		"bare on":                {"model: m, mode: on, roles: {both: " + one + "}", "must be of type string"},
		"no duration":            {"model: m, startup: soon, roles: {both: " + one + "}", "spec.startup"},
		"no time":                {"model: m, startup: 0s, roles: {both: " + one + "}", "more than 0"},
		"too long":               {"model: m, idleAfter: 721h, roles: {both: " + one + "}", "at most 720h"},
		"headroom":               {"model: m, headroom: 0.1, roles: {both: " + one + "}", "spec.headroom"},
		"one target twice":       {"model: m, roles: {prefill: " + one + ", decode: " + one + "}", "the same object"},
	} {
		_, err := w.tryCreate("apiVersion: warmpath.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: p}\nspec: {" + c.spec + "}\n")
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	good := w.create("apiVersion: warmpath.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: p}\n" +
		"spec: {model: m, idleAfter: 1h30m, objectives: {ttft: 1.5s, itl: 30ms}, headroom: 1.1, gpuBudget: 3, fcfs: true, roles: {both: " +
		"{min: 0, max: 0, gpus: 1, target: {apiVersion: apps/v1, kind: Deployment, name: a}}}}\n")
	if mode, _, _ := unstructured.NestedString(good.Object, "spec", "mode"); mode != "shadow" {
		t.Errorf("mode is %q where none is written", mode)
	}
}

func decision(now, need, target int, blind string) decide.Decision {
	return decide.Decision{At: time.Now(), Blind: blind, Roles: map[decide.Role]decide.RoleDecision{
		decide.Decode: {Now: now, Need: need, Target: target, Rule: "occupancy", Blocked: []string{"down-blocked: pod starting"}},
	}}
}

func TestStatusSaysWhatWasDecidedAndWhy(t *testing.T) {
	w := newWorld(t)
	f := w.start()
	w.must(f.Keep(w.ctx, w.pool(), []byte("state"), decision(1, 3, 2, "")))
	p := w.policyNow("p")
	role, _, _ := unstructured.NestedMap(p.Object, "status", "roles", "decode")
	got := strings.TrimSpace(fmt.Sprintln(role["now"], role["ready"], role["starting"], role["need"], role["target"], role["rule"], role["blocked"]))
	if want := "1 1 0 3 2 occupancy [down-blocked: pod starting]"; got != want {
		t.Errorf("status says %s, want %s", got, want)
	}
	out, err := plane.Kubectl(w.ctx, "-n", w.namespace, "get", "scalingpolicies", "-o", "wide").CombinedOutput()
	w.must(err)
	rows := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(rows) != 2 || strings.Join(strings.Fields(rows[0]), " ") != "NAME MODE REPLICAS READY WHY CONFLICT BLIND POOL AGE" {
		t.Fatalf("columns are %s", out)
	}
	if fields := strings.Fields(rows[1]); strings.Join(fields[:5], " ") != "p on decode 1/1>2 True" {
		t.Errorf("kubectl shows %s", rows[1])
	}
	is, _ := w.condition("p", "Blind")
	if is != "False" {
		t.Errorf("Blind is %s", is)
	}
	// A blind decision shows at once; the same decision again is not written again.
	w.must(f.Keep(w.ctx, w.pool(), []byte("state"), decision(1, 1, 1, "no router has reported for 40 s")))
	if is, why := w.condition("p", "Blind"); is != "True" || why != "no router has reported for 40 s" {
		t.Errorf("Blind is %s: %s", is, why)
	}
	version := w.policyNow("p").GetResourceVersion()
	w.must(f.Keep(w.ctx, w.pool(), []byte("newer"), decision(1, 1, 1, "no router has reported for 40 s")))
	if again := w.policyNow("p").GetResourceVersion(); again != version {
		t.Error("a status that says nothing new was written")
	}
}

func TestPoliciesThatAreNotInForceSayWhy(t *testing.T) {
	w := newWorld(t)
	f := w.start()
	leading(w, f)
	w.policy("second", deploymentTarget, "")
	w.create("apiVersion: warmpath.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: nowhere}\n" +
		"spec: {pool: other-" + w.namespace + ", roles: {decode: {target: {apiVersion: no/v1, kind: None, name: x}}}}\n")
	for name, want := range map[string]string{"second": w.namespace + "/p is older", "nowhere": "find the kind no/v1"} {
		w.eventually(name+" says why", func() (bool, any) {
			is, why := w.condition(name, "Ready")
			return is == "False" && strings.Contains(why, want), is + why
		})
	}
	pools := f.Pools()
	if len(pools) != 2 || !pools["other-"+w.namespace].Replicas[decide.Decode].Read.IsZero() {
		t.Fatalf("in force are %+v", pools)
	}
	// The elder goes: the younger takes over.
	w.must(w.objects.dynamic.Resource(policyResource()).Namespace(w.namespace).Delete(w.ctx, "p", metav1.DeleteOptions{}))
	w.eventually("the second is in force", func() (bool, any) {
		is, why := w.condition("second", "Ready")
		return is != "False" && f.Pools()[w.pool()].Replicas[decide.Decode].Ready == 1, is + why
	})
}

func TestStateOutlivesTheAutoscaler(t *testing.T) {
	w := newWorld(t)
	f := w.start()
	large := make([]byte, 100<<10)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string][]byte{"small": []byte(`{"learned":true}`), "large": large} {
		w.must(f.Keep(w.ctx, w.pool(), state, decision(len(state), 1, 1, name))) // another decision, so that it is written
		next := w.fleet()
		w.eventually("the next has the "+name+" state", func() (bool, any) {
			got := next.Pools()[w.pool()].State
			return bytes.Equal(got, state), len(got)
		})
	}
	kept, err := w.admin.CoreV1().ConfigMaps(w.namespace).Get(w.ctx, "p-warmpath-state", metav1.GetOptions{})
	w.must(err)
	if len(kept.OwnerReferences) != 1 || kept.OwnerReferences[0].Name != "p" {
		t.Errorf("nobody owns %+v", kept.ObjectMeta)
	}
	if err := f.Keep(w.ctx, w.pool(), make([]byte, stateLimit+1), decision(0, 1, 1, "")); err == nil {
		t.Error("a state without bound is kept")
	}
	if err := f.Keep(w.ctx, "unknown", nil, decision(0, 1, 1, "")); err == nil {
		t.Error("the state of no pool is kept")
	}
}

func TestDamagedStateIsAnError(t *testing.T) {
	packed, err := pack([]byte(strings.Repeat("learned ", 1000)))
	if err != nil || len(packed) > 200 {
		t.Fatalf("%d bytes, %v", len(packed), err)
	}
	if state, err := unpack(packed); err != nil || len(state) != 8000 {
		t.Fatalf("%d bytes, %v", len(state), err)
	}
	bomb, err := pack(make([]byte, stateLimit))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"x", "!!!!", packed[:len(packed)/2], bomb[:len(bomb)-8]} {
		if state, err := unpack(bad); err == nil {
			t.Errorf("%.20q is the state %d bytes", bad, len(state))
		}
	}
}

// What the role in deploy/ does not give. That it gives enough is shown by every other test here.
func TestAutoscalerMayDoNoMore(t *testing.T) {
	w := newWorld(t)
	w.deployment("engines", 1, 0)
	client, err := kubernetes.NewForConfig(serviceAccount())
	w.must(err)
	pod := w.living("engines", 1)[0]
	_, secrets := client.CoreV1().Secrets(w.namespace).List(w.ctx, metav1.ListOptions{})
	_, secret := client.CoreV1().Secrets("warmpath").Get(w.ctx, "any", metav1.GetOptions{})
	_, create := client.CoreV1().Pods(w.namespace).Create(w.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	_, listMaps := client.CoreV1().ConfigMaps(w.namespace).List(w.ctx, metav1.ListOptions{})
	deployment, err := w.admin.AppsV1().Deployments(w.namespace).Get(w.ctx, "engines", metav1.GetOptions{})
	w.must(err)
	_, update := client.AppsV1().Deployments(w.namespace).Update(w.ctx, deployment, metav1.UpdateOptions{})
	_, own := client.CoordinationV1().Leases("kube-system").Get(w.ctx, "any", metav1.GetOptions{})
	for name, err := range map[string]error{
		"list secrets": secrets, "get a secret": secret, "create a pod": create, "list ConfigMaps": listMaps,
		"update a Deployment": update, "read others' leases": own,
		"delete a pod":  client.CoreV1().Pods(w.namespace).Delete(w.ctx, pod.Name, metav1.DeleteOptions{}),
		"change a role": client.RbacV1().ClusterRoles().Delete(w.ctx, "warmpath-autoscaler-base", metav1.DeleteOptions{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("it may %s: %v", name, err)
		}
	}
}
