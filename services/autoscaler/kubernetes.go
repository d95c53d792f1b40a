package autoscaler

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/warmpath/warmpath/services/autoscaler/internal/kube"
)

// cluster is a Fleet on Kubernetes, of which one autoscaler at a time decides.
type cluster struct{ *kube.Fleet }

// newCluster makes the Fleet of the cluster that this process runs in or that a kubeconfig names. It sends nothing yet.
func newCluster(cfg *Config) (*cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	f, err := kube.New(kube.Config{REST: config, Namespace: cfg.Namespace, Instance: cfg.Instance, Log: cfg.Log, Metrics: cfg.Metrics})
	if err != nil {
		return nil, err
	}
	return &cluster{f}, nil
}

// Pools are those with a ScalingPolicy in force; nil before the policies were read.
func (c *cluster) Pools() map[string]Managed {
	all := c.Fleet.Pools()
	if all == nil {
		return nil
	}
	pools := make(map[string]Managed, len(all))
	for id, m := range all {
		pools[id] = Managed(m)
	}
	return pools
}

// Scale orders replicas through the scale subresource.
func (c *cluster) Scale(ctx context.Context, o Order) error {
	err := c.Fleet.Scale(ctx, kube.Order(o))
	if errors.Is(err, kube.ErrConflict) {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}
