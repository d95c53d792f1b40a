package router

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

const (
	watchEvery = 250 * time.Millisecond
	probeTime  = 2 * time.Second // for GET /health
)

// guard lets the ledger end the attempt that begins now when its engine is found to hang.
func (x *exchange) guard(ctx context.Context) context.Context {
	x.unguard()
	ctx, x.cancel = context.WithCancel(ctx)
	x.res.OnStall(x.cancel)
	return ctx
}

func (x *exchange) unguard() {
	if x.cancel != nil {
		x.cancel()
	}
}

// isEvents says whether an answer is a stream of events.
func isEvents(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
}

// peek waits for the first bytes of a stream, as engines send its header before they have computed anything: until then
// another engine may be asked.
func peek(resp *http.Response) error {
	if !isEvents(resp) || resp.StatusCode != http.StatusOK {
		return nil
	}
	first := make([]byte, 512)
	n, err := resp.Body.Read(first)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		resp.Body.Close()
		return err
	}
	resp.Body = &peeked{ReadCloser: resp.Body, first: first[:n], err: err}
	return nil
}

// peeked is a body whose first bytes have been read.
type peeked struct {
	io.ReadCloser
	first []byte
	err   error // after them
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.ReadCloser.Read(b)
}

// watchEngines looks for engines that hang, until ctx ends.
func (rt *router) watchEngines(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			rt.lookForStalls(ctx, time.Now())
		}
	}
}

func (rt *router) lookForStalls(ctx context.Context, now time.Time) {
	for id := range rt.fleet.View().Pools {
		p := rt.pool(id)
		probe, stop := p.Watch(now)
		rt.callOff(id, stop)
		for i := range probe {
			go rt.probe(ctx, p, probe[i])
		}
	}
}

// callOff ends attempts whose engine hangs.
func (rt *router) callOff(pool string, stop []func()) {
	for _, f := range stop {
		f()
	}
	rt.metrics.stalled.WithLabelValues(pool).Add(float64(len(stop)))
}

// probe asks a suspected engine whether it lives, and tells the ledger.
func (rt *router) probe(ctx context.Context, p *pool, e fleet.Engine) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	resp, err := rt.get(ctx, strings.TrimSuffix(e.URL, "/")+"/health")
	lives := err == nil && resp.StatusCode < http.StatusInternalServerError // 404: a server without the page lives too
	if err == nil {
		resp.Body.Close()
	}
	ejected, stop := p.Probed(e.ID, lives, time.Now())
	if ejected {
		rt.metrics.ejections.WithLabelValues(p.id).Inc()
		rt.log.Warn("engine ejected", "engine", e.Name, "reason", "it says nothing and does not answer GET /health")
	}
	rt.callOff(p.id, stop)
}
