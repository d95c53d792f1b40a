package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leaseName of the one lease that all autoscalers of a cluster contend for.
const leaseName = "warmpath-autoscaler"

// lease is how long a leader is believed, how long it tries to renew before it gives up, and how often.
type lease struct{ duration, deadline, retry time.Duration }

var errDeposed = errors.New("lease lost")

// Lead runs run while this process holds the lease, with a context that ends when it does. When run returns by itself,
// so does Lead, with its error; when the lease is lost, Lead waits for run to end and contends anew; when ctx ends, run
// ends before the lease is given up. The holder may be believed alive for 15 s after it died.
func (f *Fleet) Lead(ctx context.Context, run func(context.Context) error) error {
	for ctx.Err() == nil {
		err := f.term(ctx, run)
		if !errors.Is(err, errDeposed) {
			return err
		}
		f.log.Warn("lost the lease: another autoscaler decides", "instance", f.cfg.Instance)
	}
	return nil
}

// term contends for the lease once, and runs run for as long as it is held.
func (f *Fleet) term(ctx context.Context, run func(context.Context) error) error {
	// The elector outlives ctx: the lease is given up only after run has ended.
	contend, give := context.WithCancel(f.logged(context.WithoutCancel(ctx)))
	defer give()
	elected := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: f.cfg.Namespace, Name: leaseName},
			Client:     f.leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: f.cfg.Instance},
		},
		LeaseDuration: f.lease.duration, RenewDeadline: f.lease.deadline, RetryPeriod: f.lease.retry,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) { elected <- held },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("contend for the lease: %w", err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); elector.Run(contend) }()
	defer func() { give(); <-ended }()
	select {
	case <-ctx.Done():
		return nil
	case held := <-elected:
		return f.reign(ctx, held, run)
	}
}

func (f *Fleet) reign(ctx, held context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.deposed.Store(false)
	defer context.AfterFunc(held, func() {
		f.deposed.Store(true) // at once: what run still has in hand must not be written over what the next one wrote
		f.leading.Store(false)
		cancel()
	})()
	f.log.Info("leads: this autoscaler decides", "instance", f.cfg.Instance)
	f.leading.Store(true)
	f.metrics.leading.Set(1)
	err := run(ctx)
	f.leading.Store(false)
	f.metrics.leading.Set(0)
	if held.Err() != nil {
		return errDeposed
	}
	return err
}
