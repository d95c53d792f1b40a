package kube

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// refusals fails a test for every request that the API server forbids.
type refusals struct{ test *testing.T }

func (r *refusals) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil && response.StatusCode == http.StatusForbidden {
			r.test.Errorf("the role in deploy/ forbids %s %s", request.Method, request.URL)
		}
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// hush is a body that says nothing more while silent is set: what comes meanwhile is lost.
type hush struct {
	io.ReadCloser
	silent *atomic.Bool
	ctx    context.Context
}

func (h *hush) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if h.silent.Load() && n > 0 {
		<-h.ctx.Done()
		return 0, h.ctx.Err()
	}
	return n, err
}

// value is that of a counter or gauge.
func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

// log is the test's, until it ends: Events are sent in the background, and may fail after that.
func (w *world) log() io.Writer {
	l := &testLog{out: w.Output()}
	w.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.out = io.Discard
	})
	return l
}

type testLog struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(p)
}
