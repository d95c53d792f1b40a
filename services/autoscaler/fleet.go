package autoscaler

import (
	"context"
	"errors"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Fleet starts and stops engines: a Kubernetes cluster, or simulated engines. Its methods are called from one goroutine.
type Fleet interface {
	// Pools says which pools may be scaled and what runs of them now; nil is not known yet. It does not block.
	Pools() map[string]Managed
	// Scale carries out an order, or says why not: ErrConflict if the object changed since From was read.
	Scale(ctx context.Context, o Order) error
	// Keep keeps a pool's state for the next start and shows the decision to people. The state has no prompts.
	Keep(ctx context.Context, pool string, state []byte, d decide.Decision) error
}

// Managed is a pool that may be scaled.
type Managed struct {
	Policy   decide.Policy
	Replicas map[decide.Role]decide.Replicas
	State    []byte // that Keep kept last; nil is none
}

// Order asks for a number of replicas of one role.
type Order struct {
	Pool    string
	Role    decide.Role
	From    int      // what is ordered now
	To      int      // what shall be
	Victims []string // engines that have drained and should be those to go
	Why     string   // the binding rule
}

// ErrConflict is an order that came too late: somebody else changed the object. It is read anew before the next.
var ErrConflict = errors.New("scaled object changed")
