package kube

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// quick makes a lease pass on in seconds.
func quick(f *Fleet) {
	f.lease = lease{3 * time.Second, 2 * time.Second, 200 * time.Millisecond}
}

// cut has every request of a Fleet fail while it is set, as for a process that is paused or parted from the API server.
func cut(w *world, isCut *atomic.Bool, before func(*http.Request)) func(*Fleet) {
	return func(f *Fleet) {
		config := serviceAccount()
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				if isCut.Load() {
					return nil, context.DeadlineExceeded
				}
				response, err := next.RoundTrip(r)
				if before != nil {
					before(r)
				}
				return response, err
			})
		})
		w.must(f.connect(rest.CopyConfig(config)))
	}
}

// The leader dies right after the API server has taken its order, before it knows. The other goes on from what holds,
// and the order is there once; the first, when it comes back, does not decide, and an order of its old knowledge is refused.
func TestAnotherLeadsOnAfterADeathInMidScale(t *testing.T) {
	w := newWorld(t)
	var dead atomic.Bool
	first := w.start(quick, cut(w, &dead, func(r *http.Request) {
		if r.Method == http.MethodPut && r.URL.Path[len(r.URL.Path)-6:] == "/scale" {
			dead.Store(true)
		}
	}))
	want := func(f *Fleet) func(context.Context) error { // three are wanted, whoever decides
		return func(ctx context.Context) error {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				if r := f.Pools()[w.pool()].Replicas[decide.Decode]; !r.Read.IsZero() && r.Desired < 3 {
					_ = f.Scale(ctx, w.order(r.Desired, r.Desired+2)) // the test looks at what comes of it
				}
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error, 2)
	go func() { ended <- first.Lead(ctx, want(first)) }()
	w.eventually("the order is taken and its leader dead", func() (bool, any) { return dead.Load(), w.replicas("engines") })
	if !first.leading.Load() {
		t.Fatal("it gave up at once")
	}
	second := w.fleet(quick)
	go func() { ended <- second.Lead(ctx, want(second)) }()
	w.eventually("the other leads", func() (bool, any) { return second.leading.Load(), nil })
	w.eventually("the first knows that it does not", func() (bool, any) { return !first.leading.Load(), nil })
	w.decodes(second, "the other knows", func(r decide.Replicas) bool { return r.Desired >= 3 })
	dead.Store(false)
	old := first.Pools()[w.pool()].Replicas[decide.Decode].Desired
	if err := first.Scale(w.ctx, w.order(1, 3)); err == nil {
		t.Fatalf("the dead one, which knows %d, has its order carried out again", old)
	}
	// Nor does one of what it has read since, nor what it would keep of the pool.
	w.decodes(first, "it has read what holds", func(r decide.Replicas) bool { return r.Desired == 3 })
	if err := first.Scale(w.ctx, w.order(3, 4)); !errors.Is(err, ErrRefused) {
		t.Fatalf("it orders without the lease: %v", err)
	}
	if err := first.Keep(w.ctx, w.pool(), []byte("old"), decision(1, 1, 1, "")); !errors.Is(err, errDeposed) {
		t.Fatalf("it writes over what the other keeps: %v", err)
	}
	cancel()
	for range 2 {
		w.must(<-ended)
	}
	if got := w.replicas("engines"); got != 3 {
		t.Fatalf("%d are ordered: the order was carried out twice, or never", got)
	}
}

func TestLeaseIsGivenUpOnlyAfterTheLeaderHasEnded(t *testing.T) {
	w := newWorld(t)
	first, second := w.fleet(quick), w.fleet(quick)
	ctx, cancel := context.WithCancel(w.ctx)
	began, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- first.Lead(ctx, func(ctx context.Context) error {
			close(began)
			<-ctx.Done()
			<-release // its last order takes a while
			return nil
		})
	}()
	<-began
	other := make(chan struct{})
	end, stop := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- second.Lead(end, func(ctx context.Context) error { close(other); <-ctx.Done(); return nil })
	}()
	waiting, leave := context.WithCancel(w.ctx)
	left := make(chan error, 1)
	third := w.fleet(quick)
	go func() { left <- third.Lead(waiting, func(context.Context) error { return errDeposedByTest }) }()
	leave()
	w.must(<-left) // who only waits ends when told to
	cancel()
	deadline := time.After(2 * first.lease.duration)
	select {
	case <-other:
		t.Fatal("two lead at once")
	case <-deadline: // longer than a lease that nobody renews is believed
	}
	close(release)
	w.must(<-done)
	select {
	case <-other:
	case <-w.ctx.Done():
		t.Fatal("nobody leads")
	}
	stop()
	w.must(<-ended)
}

func TestLeadEndsWithWhatItRuns(t *testing.T) {
	w := newWorld(t)
	f := w.fleet(quick)
	if err := f.Lead(w.ctx, func(context.Context) error { return errDeposedByTest }); err != errDeposedByTest { //nolint:errorlint // unwrapped
		t.Fatalf("got %v", err)
	}
}

var errDeposedByTest = context.DeadlineExceeded
