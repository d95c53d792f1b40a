package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/scalingpolicy"
)

// policyResource is where the API server has ScalingPolicies.
func policyResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{
		Group: scalingpolicy.Group, Version: scalingpolicy.Version, Resource: scalingpolicy.Resource,
	}
}

// policy is one ScalingPolicy, and what was told in its status.
type policy struct {
	object *unstructured.Unstructured
	parsed scalingpolicy.Policy
	wrong  string // why it is not in force; "" where it is
	reason string // of wrong, in the words of conditions

	state    []byte // of the pool, kept by us or found
	found    string // which state was found, so that it is read once
	decision *decide.Decision
	told     told
}

// pool is a policy in force.
type pool struct {
	policy *policy
	roles  map[decide.Role]*scaled
}

// key names an object that is scaled, for whom, and by which policy.
type key struct {
	object
	pool   string
	role   decide.Role
	policy string // its name
	uid    types.UID
}

// object is what two policies must not both scale.
type object struct {
	namespace string
	target    scalingpolicy.Target
}

// about is what Events of the role are about: its policy.
func (k key) about() *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: scalingpolicy.APIVersion, Kind: scalingpolicy.Kind, UID: k.uid, Namespace: k.namespace, Name: k.policy,
	}
}

func (f *Fleet) watchPolicies() cache.SharedIndexInformer {
	return dynamicinformer.NewFilteredDynamicInformer(f.dynamic, policyResource(), f.cfg.Policies, 0,
		cache.Indexers{}, func(*metav1.ListOptions) {}).Informer()
}

// fold takes the policies as the watch has them: which pools they are of, which of two for one thing is in force, and
// which objects are read.
func (f *Fleet) fold(start starter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	objects := f.policies.GetStore().List()
	slices.SortFunc(objects, func(a, b any) int { return elder(a.(*unstructured.Unstructured), b.(*unstructured.Unstructured)) })
	all, pools := map[string]*policy{}, map[string]*pool{}
	roles, owners := map[key]*scaled{}, map[object]*policy{}
	for _, o := range objects {
		found := o.(*unstructured.Unstructured)
		p := f.all[found.GetNamespace()+"/"+found.GetName()]
		if p == nil || p.object.GetUID() != found.GetUID() {
			p = &policy{}
		}
		p.take(found)
		all[p.name()] = p
		f.findState(p, start)
		id := p.parsed.Spec.PoolID()
		if p.supersede(pools[id], owners); p.wrong != "" {
			continue
		}
		pools[id] = &pool{policy: p, roles: map[decide.Role]*scaled{}}
		for role, r := range p.parsed.Spec.Roles {
			at := object{p.parsed.Namespace, r.Target}
			k := key{at, id, role, p.parsed.Name, p.object.GetUID()}
			if roles[k] = f.roles[k]; roles[k] == nil {
				roles[k] = newScaled(k)
			}
			owners[at], pools[id].roles[role] = p, roles[k]
		}
	}
	for k, r := range f.roles {
		if roles[k] == nil {
			r.pods.stop()
			f.metrics.forget(r.pool, r.role)
		}
	}
	f.all, f.pools, f.roles = all, pools, roles
}

// supersede says whether an older policy is of the same pool, or scales the same object.
func (p *policy) supersede(same *pool, owners map[object]*policy) {
	if p.reason == "Invalid" {
		return
	}
	p.wrong, p.reason = "", ""
	if same != nil {
		p.wrong, p.reason = fmt.Sprintf("ScalingPolicy %s is older and of the same pool", same.policy.name()), "Superseded"
	}
	for _, r := range p.parsed.Spec.Roles {
		if other := owners[object{p.parsed.Namespace, r.Target}]; other != nil {
			p.wrong, p.reason = fmt.Sprintf("ScalingPolicy %s is older and scales %s", other.name(), r.Target), "Superseded"
		}
	}
}

// elder orders policies by age, so that a new one never takes a pool from one that is in force.
func elder(a, b *unstructured.Unstructured) int {
	return cmp.Or(
		a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time),
		cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

func (p *policy) name() string { return p.object.GetNamespace() + "/" + p.object.GetName() }

// take reads the policy as it is now.
func (p *policy) take(found *unstructured.Unstructured) {
	same := p.object != nil && p.object.GetGeneration() == found.GetGeneration()
	if p.object = found; same {
		return
	}
	p.wrong, p.reason = "", ""
	data, err := found.MarshalJSON()
	if err == nil {
		p.parsed, err = scalingpolicy.FromJSON(data)
	}
	if err == nil {
		for _, r := range p.parsed.Spec.Roles {
			if r.Target.APIVersion == "" || r.Target.Kind == "" || r.Target.Name == "" {
				err = fmt.Errorf("%w: a role has no target", scalingpolicy.ErrInvalid)
			}
		}
	}
	if err != nil {
		p.wrong, p.reason = err.Error(), "Invalid"
	}
}

// findState reads the state that was kept for the pool, once for each that was kept, and not while we keep it ourselves.
func (f *Fleet) findState(p *policy, start starter) {
	status, _, _ := unstructured.NestedMap(p.object.Object, "status")
	text, _ := status["state"].(string)
	in, _ := status["stateIn"].(string)
	at, _ := status["decided"].(string)
	if f.leading.Load() && p.state != nil || at == "" || at == p.found {
		return
	}
	p.found = at
	if in == "" {
		p.setState(f, text)
		return
	}
	namespace := p.object.GetNamespace()
	start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		kept, err := f.core.ConfigMaps(namespace).Get(ctx, in, metav1.GetOptions{})
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil {
			f.log.Warn("cannot read the state of a pool", "policy", p.name(), "err", err)
			p.found = ""
			return
		}
		if !f.leading.Load() || p.state == nil {
			p.setState(f, string(kept.BinaryData[stateKey]))
		}
	})
}

func (p *policy) setState(f *Fleet, packed string) {
	state, err := unpack(packed)
	if err != nil {
		f.log.Warn("the kept state of a pool is damaged; it begins anew", "policy", p.name(), "err", err)
		return
	}
	p.state = state
}
