package enginefleet_test

import (
	"context"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// The five services and their engines, through what a day brings: more load, fewer engines allowed, none at night, the
// first request of the morning, an autoscaler that restarts and a NATS that goes away. No request fails.
func TestEnginesFollowTheLoad(t *testing.T) {
	w := newWorld(t)
	stop := w.load(24, 20)
	w.until("more engines of both roles", func() bool { return w.running(decide.Prefill) > 1 && w.running(decide.Decode) > 1 })
	w.until("much learned", func() bool { return confidence(w) > .4 })
	w.nothingLost()

	// A new autoscaler goes on with what the one before learned, and changes nothing only because it is new.
	learned, before := confidence(w), w.ordered()
	w.stopScale()
	w.scale()
	w.until("the first decision of its successor", func() bool { return len(w.decisions()) > 0 })
	if r := w.decisions()[0].Roles[decide.Prefill]; r.Model.Confidence < .9*learned {
		t.Errorf("it begins with confidence %v, the one before had %v", r.Model.Confidence, learned)
	}
	if n := w.ordered(); n < before {
		t.Errorf("%d engines of %d are left", n, before)
	}

	// Fewer are allowed: engines drain under load, and go.
	stop()
	stop = w.load(16, 60)
	w.until("more engines at work than are to stay", func() bool { return w.fleet.Busy() > 3 })
	fewer := policy()
	fewer.Bounds = map[decide.Role]decide.Bounds{decide.Prefill: {Max: 1}, decide.Decode: {Max: 1}}
	w.fleet.SetPolicy(fewer)
	w.until("one engine of each role", func() bool { return w.ordered() == 2 })
	w.nothingLost()

	// NATS goes away for longer than routers may be silent: nothing changes, and requests are served.
	w.nats.Stop()
	for end := time.Now().Add(40 * time.Second / speed); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if n := w.ordered(); n != 2 {
			t.Fatalf("without NATS there are %d engines", n)
		}
	}
	w.startNATS()
	stop()
	w.nothingLost()

	// Nobody asks: no engine. Then somebody does, and waits for one.
	idle := policy()
	idle.IdleAfter = 20 * time.Second
	w.fleet.SetPolicy(idle)
	w.until("no engine", func() bool { return w.ordered() == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.ask(ctx, 20); err != nil {
		t.Errorf("the first request after the night: %v", err)
	}
	w.nothingLost()
	t.Logf("%d requests, engines were ordered for %v", w.sent.Load(), w.fleet.Used())
}

// confidence is what the autoscaler's prefill model has in the last decision.
func confidence(w *world) float64 {
	all := w.decisions()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Roles[decide.Prefill].Model.Confidence
}
