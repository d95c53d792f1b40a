package scalingpolicy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// ErrInvalid is a policy that contradicts itself or says nothing.
var ErrInvalid = errors.New("scaling policy is invalid")

// The limits of what may be asked for; those of deploy/crd/scalingpolicies.yaml.
const (
	maxReplicas  = 10_000
	maxGPUs      = 1_024 // of one replica
	maxBudget    = 1_000_000
	leastMargin  = 0.5
	greatMargin  = 3
	longDuration = 30 * 24 * time.Hour
)

// Check says all that is wrong with a spec, as one error that wraps ErrInvalid. Targets are not asked for: only a
// cluster has them.
func (s Spec) Check() error {
	var wrong []error
	say := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	say((s.Model == "") == (s.Pool == ""), "spec: name one of model and pool")
	say(len(s.Model) > 512 || len(s.Pool) > 64, "spec: model or pool is too long")
	modes := []decide.Mode{"", decide.Off, decide.Shadow, decide.UpOnly, decide.On}
	say(!slices.Contains(modes, s.Mode), "spec.mode: %q is none of off, shadow, up-only, on", s.Mode)
	say(s.GPUBudget < 0 || s.GPUBudget > maxBudget, "spec.gpuBudget: %d is not between 0 and %d", s.GPUBudget, maxBudget)
	// The comparison is so written that NaN fails it too.
	say(s.Headroom != 0 && !(s.Headroom >= leastMargin && s.Headroom <= greatMargin),
		"spec.headroom: %v is not between %v and %v", s.Headroom, leastMargin, greatMargin)
	for _, d := range []struct {
		name string
		Duration
	}{
		{"objectives.ttft", s.Objectives.TTFT},
		{"objectives.itl", s.Objectives.ITL},
		{"idleAfter", s.IdleAfter},
		{"startup", s.Startup},
	} {
		v := time.Duration(d.Duration)
		say(v < 0 || v > longDuration, "spec.%s: %v is not between 0 and %v", d.name, v, longDuration)
	}
	say(len(s.Roles) == 0, "spec.roles: name at least one of prefill, decode, both")
	for _, role := range slices.Sorted(maps.Keys(s.Roles)) {
		wrong = append(wrong, s.Roles[role].check(role, s.IdleAfter > 0)...)
	}
	wrong = append(wrong, s.checkTogether()...)
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrInvalid, errors.Join(wrong...))
}

func (r Role) check(role decide.Role, zero bool) []error {
	at := "spec.roles." + string(role)
	if role != decide.Prefill && role != decide.Decode && role != decide.Both {
		return []error{fmt.Errorf("%s: a role is prefill, decode or both", at)}
	}
	var wrong []error
	if r.Max < 0 || r.Max > maxReplicas {
		wrong = append(wrong, fmt.Errorf("%s.max: %d is not between 0 and %d", at, r.Max, maxReplicas))
	}
	if r.GPUs < 0 || r.GPUs > maxGPUs {
		wrong = append(wrong, fmt.Errorf("%s.gpus: %d is not between 0 and %d", at, r.GPUs, maxGPUs))
	}
	if r.Min == nil {
		return wrong
	}
	switch low := *r.Min; {
	case low < 0 || low > maxReplicas:
		wrong = append(wrong, fmt.Errorf("%s.min: %d is not between 0 and %d", at, low, maxReplicas))
	case r.Max > 0 && low > r.Max:
		wrong = append(wrong, fmt.Errorf("%s: min %d is more than max %d", at, low, r.Max))
	case low == 0 && !zero:
		wrong = append(wrong, fmt.Errorf("%s.min: 0 is for pools that may go to zero: set idleAfter", at))
	}
	return wrong
}

// checkTogether says what is wrong between roles: two that scale one object, and a budget below the minima.
func (s Spec) checkTogether() []error {
	var wrong []error
	owner, least := map[Target]decide.Role{}, 0
	for _, role := range slices.Sorted(maps.Keys(s.Roles)) {
		r := s.Roles[role]
		if other, taken := owner[r.Target]; taken && r.Target != (Target{}) {
			wrong = append(wrong, fmt.Errorf("spec.roles: %s and %s scale the same %s", other, role, r.Target))
		}
		owner[r.Target] = role
		if r.Min != nil {
			least += *r.Min * max(r.GPUs, 1)
		}
	}
	if s.GPUBudget > 0 && least > s.GPUBudget {
		wrong = append(wrong, fmt.Errorf("spec.gpuBudget: %d is less than the %d of all minima", s.GPUBudget, least))
	}
	return wrong
}
