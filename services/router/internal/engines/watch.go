package engines

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const (
	watchEvery = 250 * time.Millisecond
	probeTime  = 2 * time.Second // for GET /health
)

// Watch finds engines that hang, and has the ledgers end what is under way on them. All fields must be set.
type Watch struct {
	Client  *Client
	View    func() *fleet.View
	Pool    func(id string) *ledger.Pool    // of a pool in the view
	Ejected func(pool string)               // an engine was
	Stalled func(pool string, attempts int) // so many were ended
	Log     *slog.Logger
}

// Run looks for engines that hang, until ctx ends; it returns nil.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.Look(ctx, time.Now())
		}
	}
}

// Look looks once. It does not wait for the engines that it asks.
func (w *Watch) Look(ctx context.Context, now time.Time) {
	for id := range w.View().Pools {
		p := w.Pool(id)
		probe, stop := p.Watch(now)
		w.callOff(id, stop)
		for i := range probe {
			go w.probe(ctx, id, &probe[i])
		}
	}
}

// callOff ends attempts whose engine hangs.
func (w *Watch) callOff(pool string, stop []func()) {
	for _, f := range stop {
		f()
	}
	w.Stalled(pool, len(stop))
}

// probe asks a suspected engine whether it lives, and tells the ledger.
func (w *Watch) probe(ctx context.Context, pool string, e *fleet.Engine) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	resp, err := w.Client.get(ctx, e.URL, "/health")
	lives := err == nil && resp.StatusCode < http.StatusInternalServerError // 404: a server without the page lives too
	if err == nil {
		resp.Body.Close()
	}
	ejected, stop := w.Pool(pool).Probed(e.ID, lives, time.Now())
	if ejected {
		w.Ejected(pool)
		w.Log.Warn("engine ejected", "engine", e.Name, "reason", "it says nothing and does not answer GET /health")
	}
	w.callOff(pool, stop)
}
