package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/autoscaler/internal/scalingpolicy"
)

// errNobodyActs is an order where nobody starts or stops engines.
var errNobodyActs = errors.New("nobody here starts or stops engines")

// policyFile is a Fleet of pools whose engines somebody else starts and stops: their policies are in a file, and their
// states in a folder. What is decided is only shown; the metric of desired replicas is for who acts on it.
type policyFile struct {
	pools map[string]Managed
	dir   string // "" is nowhere
}

// readPolicies reads a file of ScalingPolicies, if there is one, and the states kept in dir.
func readPolicies(file, dir string) (*policyFile, error) {
	f := &policyFile{pools: make(map[string]Managed), dir: dir}
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of states: %w", err)
		}
	}
	if file == "" {
		return f, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read scaling policies: %w", err)
	}
	policies, err := scalingpolicy.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read scaling policies in %s: %w", file, err)
	}
	for _, p := range policies {
		m := Managed{Policy: p.Spec.Policy()}
		if dir != "" {
			m.State, err = os.ReadFile(f.path(p.Spec.PoolID()))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("read the state of %s: %w", p.Name, err)
			}
		}
		f.pools[p.Spec.PoolID()] = m
	}
	return f, nil
}

func (f *policyFile) path(pool string) string {
	return filepath.Join(f.dir, "autoscaler-"+filepath.Base(pool)+".json")
}

// Pools are those with a policy.
func (f *policyFile) Pools() map[string]Managed { return f.pools }

// Scale refuses.
func (f *policyFile) Scale(context.Context, Order) error { return errNobodyActs }

// Keep writes the state of a pool with a policy by rename, so that a crash leaves the one before.
func (f *policyFile) Keep(_ context.Context, pool string, state []byte, _ decide.Decision) error {
	if _, ours := f.pools[pool]; !ours || f.dir == "" {
		return nil
	}
	path := f.path(pool)
	if err := os.WriteFile(path+".new", state, 0o600); err != nil {
		return fmt.Errorf("keep a state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keep a state: %w", err)
	}
	return nil
}
