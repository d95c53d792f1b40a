package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// status is that of a ScalingPolicy.
type status struct {
	ObservedGeneration int64                       `json:"observedGeneration"`
	Pool               string                      `json:"pool"`
	Summary            string                      `json:"summary"`
	Roles              map[decide.Role]*roleStatus `json:"roles"` // nil values remove what was told of roles that are gone
	Conditions         []metav1.Condition          `json:"conditions"`

	// Not compared: they change with every decision.
	Decided *metav1.Time `json:"decided,omitempty"`
	State   *string      `json:"state,omitempty"`
	StateIn *string      `json:"stateIn,omitempty"`
}

// roleStatus is that of one role.
type roleStatus struct {
	Now      int      `json:"now"`
	Ready    int      `json:"ready"`
	Starting int      `json:"starting"`
	Need     int      `json:"need"`
	Target   int      `json:"target"`
	Rule     string   `json:"rule"`
	Blocked  []string `json:"blocked"`
	Problem  *string  `json:"problem"`
}

// told is what a policy's status was last made to say.
type told struct {
	shown      []byte
	conditions []metav1.Condition
	at         time.Time // when the state went with it
}

// keepEvery is how often a state is kept while nothing that is shown changes.
const keepEvery = time.Minute

// Keep keeps a pool's state for the next start and shows the decision in the policy's status: at once where what is shown
// has changed, else each minute. The state must hold no prompts: whoever may read policies may read it.
func (f *Fleet) Keep(ctx context.Context, id string, state []byte, d decide.Decision) error {
	if f.deposed.Load() {
		return fmt.Errorf("keep the state of pool %s: %w", id, errDeposed)
	}
	f.mu.Lock()
	var p *policy
	if found := f.pools[id]; found != nil {
		p = found.policy
		p.state, p.decision = bytes.Clone(state), &d
	}
	f.mu.Unlock()
	if p == nil {
		return fmt.Errorf("keep the state of pool %s: no ScalingPolicy in force is of it", id)
	}
	return f.show(ctx, p)
}

// tell shows what is new of every policy: also of those that are not in force, of which nobody decides.
func (f *Fleet) tell(ctx context.Context) {
	f.mu.Lock()
	policies := slices.Collect(maps.Values(f.all))
	f.mu.Unlock()
	for _, p := range policies {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		if err := f.show(ctx, p); err != nil && ctx.Err() == nil {
			f.log.Warn("cannot write the status of a policy", "err", err)
		}
		cancel()
	}
}

// show writes a policy's status, if there is something to say. It is called by Run and by Keep: what the later of two
// says holds, and both say what is known.
func (f *Fleet) show(ctx context.Context, p *policy) error {
	f.mu.Lock()
	was := p.told
	now := f.compose(p)
	shown, err := json.Marshal(now)
	state, owner, decided := p.state, p.owner(), p.decision
	name, namespace := p.object.GetName(), p.object.GetNamespace()
	stale := decided != nil && time.Since(was.at) >= keepEvery
	changed := !bytes.Equal(shown, was.shown)
	f.mu.Unlock()
	if err != nil || !changed && !stale {
		return err
	}
	if decided != nil {
		at := metav1.NewTime(decided.At)
		now.Decided = &at
		if err := f.keepState(ctx, &now, namespace, owner, state); err != nil {
			return err
		}
	}
	patch, err := json.Marshal(map[string]any{"status": now, "metadata": map[string]any{"uid": owner.UID}})
	if err != nil {
		return fmt.Errorf("write status of %s: %w", name, err)
	}
	client := f.dynamic.Resource(policyResource()).Namespace(namespace)
	_, err = client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return nil // it has just been deleted
	}
	if err != nil {
		return fmt.Errorf("write status of %s: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.told.shown, p.told.conditions = shown, now.Conditions
	if decided != nil {
		p.told.at = time.Now()
	}
	return nil
}

func (f *Fleet) keepState(ctx context.Context, now *status, namespace string, owner metav1.OwnerReference, state []byte) error {
	packed, err := pack(state)
	if err != nil {
		return err
	}
	in := ""
	if len(packed) > statusLimit {
		if in, err = f.keepApart(ctx, namespace, owner, packed); err != nil {
			return err
		}
		packed = ""
	}
	now.State, now.StateIn = &packed, &in
	return nil
}

// compose says what a policy's status should be, but for the state. f.mu is held.
func (f *Fleet) compose(p *policy) status {
	now := status{ObservedGeneration: p.object.GetGeneration(), Roles: map[decide.Role]*roleStatus{
		decide.Prefill: nil, decide.Decode: nil, decide.Both: nil,
	}}
	now.Conditions = slices.Clone(p.told.conditions)
	if p.told.shown == nil {
		now.Conditions = conditionsOf(p.object)
	}
	set := func(kind string, is metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&now.Conditions, metav1.Condition{
			Type: kind, Status: is, Reason: reason, Message: message, ObservedGeneration: now.ObservedGeneration,
		})
	}
	if p.wrong != "" {
		set("Ready", metav1.ConditionFalse, p.reason, p.wrong)
		return now
	}
	now.Pool = p.parsed.Spec.PoolID()
	inForce := f.pools[now.Pool]
	if inForce == nil { // it has just gone
		return now
	}
	var summary, rivals, problems []string
	for _, role := range []decide.Role{decide.Prefill, decide.Decode, decide.Both} {
		s := inForce.roles[role]
		if s == nil {
			continue
		}
		r, rival := s.status(p.decision)
		now.Roles[role] = r
		summary = append(summary, r.String(role))
		if rival != "" {
			rivals = append(rivals, fmt.Sprintf("%s scales %s too", rival, s.target))
		}
		if r.Problem != nil {
			problems = append(problems, *r.Problem)
		}
	}
	now.Summary = strings.Join(summary, ", ")
	ready, reason, why := metav1.ConditionTrue, "InForce", ""
	switch {
	case len(problems) > 0:
		ready, reason, why = metav1.ConditionFalse, "Unreadable", strings.Join(problems, "; ")
	case len(rivals) > 0:
		ready, reason, why = metav1.ConditionFalse, "Conflict", strings.Join(rivals, "; ")
	case p.decision == nil:
		ready, reason, why = metav1.ConditionUnknown, "Undecided", "nothing has been decided yet"
	}
	set("Ready", ready, reason, why)
	set("Conflict", truth(len(rivals) > 0), word(len(rivals) > 0, "OtherAutoscaler", "Alone"), strings.Join(rivals, "; "))
	if p.decision != nil {
		set("Blind", truth(p.decision.Blind != ""), word(p.decision.Blind != "", "SourceMissing", "Seeing"), p.decision.Blind)
	}
	return now
}

func truth(is bool) metav1.ConditionStatus {
	if is {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

func word(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// status says what runs of a role and what was decided for it, and who else scales it.
func (s *scaled) status(d *decide.Decision) (*roleStatus, string) {
	living := s.pods.living()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &roleStatus{Now: s.reading.replicas, Blocked: []string{}}
	for _, pod := range living {
		if _, ready := readySince(pod); ready {
			r.Ready++
		} else {
			r.Starting++
		}
	}
	if s.problem != "" {
		r.Problem = &s.problem
	}
	r.Need, r.Target = r.Now, r.Now
	if d != nil {
		if decided, ok := d.Roles[s.role]; ok {
			r.Need, r.Target, r.Rule = decided.Need, decided.Target, decided.Rule
			r.Blocked = append(r.Blocked, decided.Blocked...)
		}
	}
	return r, s.rival
}

// String is the role in a column of `kubectl get`: what is, and what shall be where that differs.
func (r *roleStatus) String(role decide.Role) string {
	text := fmt.Sprintf("%s %d/%d", role, r.Ready, r.Now)
	if r.Target != r.Now {
		text += fmt.Sprintf(">%d", r.Target)
	}
	return text
}

// conditionsOf are those that a policy had before we came, so that the times of their transitions stay.
func conditionsOf(object *unstructured.Unstructured) []metav1.Condition {
	list, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil {
		return nil
	}
	var conditions []metav1.Condition
	for _, item := range list {
		var c metav1.Condition
		if fields, ok := item.(map[string]any); ok && runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &c) == nil {
			conditions = append(conditions, c)
		}
	}
	return conditions
}
