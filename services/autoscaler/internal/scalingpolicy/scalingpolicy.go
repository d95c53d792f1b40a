// Package scalingpolicy is what an operator writes of how a pool is scaled: a ScalingPolicy, in a file or as a custom
// resource of Kubernetes, in the same words.
//
// It reads, checks and translates; it knows no cluster. What a field may be is said twice, here and in
// deploy/crd/scalingpolicies.yaml, because an API server judges before we see it and files have no API server.
package scalingpolicy

import (
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// The names by which Kubernetes knows a ScalingPolicy.
const (
	Group      = "warmpath.dev"
	Version    = "v1alpha1"
	Kind       = "ScalingPolicy"
	Resource   = "scalingpolicies"
	APIVersion = Group + "/" + Version
)

// Policy is one ScalingPolicy.
type Policy struct {
	Name      string // of its metadata
	Namespace string // where its targets are; "" outside Kubernetes
	Spec      Spec
}

// Spec is what the operator wants. A field that is absent means the default of decide.Policy.
type Spec struct {
	Model      string               `json:"model,omitempty"` // as the engines serve it; or
	Pool       string               `json:"pool,omitempty"`  // the id of the pool
	Objectives Objectives           `json:"objectives,omitzero"`
	Roles      map[decide.Role]Role `json:"roles"`
	GPUBudget  int                  `json:"gpuBudget,omitempty"` // that all roles may take
	Headroom   float64              `json:"headroom,omitempty"`
	IdleAfter  Duration             `json:"idleAfter,omitempty"`
	Startup    Duration             `json:"startup,omitempty"`
	Mode       decide.Mode          `json:"mode,omitempty"`
	FCFS       bool                 `json:"fcfs,omitempty"`
}

// Objectives are those of every request.
type Objectives struct {
	TTFT Duration `json:"ttft,omitempty"`
	ITL  Duration `json:"itl,omitempty"`
}

// Role is how the replicas of one role are scaled.
type Role struct {
	Target Target `json:"target,omitzero"`
	Min    *int   `json:"min,omitempty"`
	Max    int    `json:"max,omitempty"`
	GPUs   int    `json:"gpus,omitempty"`
}

// Target is the object whose scale subresource holds the number of replicas, in the policy's namespace.
type Target struct {
	APIVersion string `json:"apiVersion,omitempty"` // apps/v1
	Kind       string `json:"kind,omitempty"`       // Deployment
	Name       string `json:"name,omitempty"`
}

// String is how people write a target: kind/name.
func (t Target) String() string { return t.Kind + "/" + t.Name }

// Duration is written as 2s, 50ms or 1h30m.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("read a duration: %w", err)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// PoolID is the pool that the policy is of.
func (s Spec) PoolID() string {
	if s.Pool != "" {
		return s.Pool
	}
	return fleet.PoolID(s.Model)
}

// Policy is the spec in the words of the decision.
func (s Spec) Policy() decide.Policy {
	p := decide.Policy{
		Mode:      s.Mode,
		TTFT:      time.Duration(s.Objectives.TTFT),
		ITL:       time.Duration(s.Objectives.ITL),
		Bounds:    make(map[decide.Role]decide.Bounds, len(s.Roles)),
		GPUs:      s.GPUBudget,
		Headroom:  s.Headroom,
		IdleAfter: time.Duration(s.IdleAfter),
		Startup:   time.Duration(s.Startup),
		FCFS:      s.FCFS,
	}
	for role, r := range s.Roles {
		b := decide.Bounds{Max: r.Max, GPUs: r.GPUs}
		if r.Min != nil {
			b.Min = *r.Min
		}
		p.Bounds[role] = b
	}
	return p
}
