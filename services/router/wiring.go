package router

import (
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/internal/door"
	"github.com/warmpath/warmpath/services/router/internal/engines"
	"github.com/warmpath/warmpath/services/router/internal/peers"
	"github.com/warmpath/warmpath/services/router/ledger"
	"github.com/warmpath/warmpath/services/router/queue"
)

// Requests that wait for one pool, and of one tenant in a band of it.
const (
	queueRequests  = 5000
	tenantRequests = 2500
	waitingShare   = 2 // the bodies that wait in a pool may hold such a part of BodyBytes: else one tenant's could hold all
)

// view is what is known of the fleet now.
func (rt *router) view() *fleet.View { return rt.fleet.View() }

func (rt *router) ledger(id string) *ledger.Pool { return rt.pool(id).Pool }

// hang makes the door of a pool.
func (rt *router) hang(d *door.Door, p *pool) {
	d.Engines, d.View, d.Counter = p, rt.view, p
	d.Gate = ledger.GateFor(rt.cfg.SLO.TTFT, rt.cfg.SLO.ITL)
	d.Limits = queue.Limits{Requests: queueRequests, TenantRequests: tenantRequests, Bytes: rt.cfg.BodyBytes / waitingShare}
	d.QueueTTL, d.Hold = rt.cfg.QueueTTL, rt.cfg.Hold
}

func (rt *router) newPeers() *peers.Peers {
	m := rt.metrics
	return peers.New(peers.Self{
		Instance: rt.instance, Life: rt.started.UnixNano(), View: rt.view, Pool: rt.ledger,
		Send:    func(subject string, data []byte) error { return rt.bus.Send(subject, data) },
		Heard:   func(routers int) { m.peers.Set(float64(routers)) },
		Dropped: m.dropped.WithLabelValues("ledger").Inc,
		Refused: func(reason string) { m.refused.WithLabelValues(reason).Inc() },
	})
}

func (rt *router) newScraper() *engines.Scraper {
	return &engines.Scraper{
		Client: &rt.engines, Every: rt.cfg.Scrape, View: rt.view, Pool: rt.ledger, Failed: rt.metrics.unscraped.Inc, Log: rt.log,
	}
}

func (rt *router) newWatch() *engines.Watch {
	m := rt.metrics
	return &engines.Watch{
		Client: &rt.engines, View: rt.view, Pool: rt.ledger, Log: rt.log,
		Ejected: func(pool string) { m.ejections.WithLabelValues(pool).Inc() },
		Stalled: func(pool string, attempts int) { m.stalled.WithLabelValues(pool).Add(float64(attempts)) },
	}
}
