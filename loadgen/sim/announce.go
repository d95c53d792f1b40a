package sim

import "time"

// wire is what is under way between an engine and the index. Its batches arrive in order.
type wire struct {
	gap   bool          // batches are missing since the last one that arrived
	lost  []*batch      // what they changed
	shown time.Duration // no later batch is visible before
}

// announce takes a step's events to the index. A batch that is lost is missed when the next one comes, as its sequence
// number tells: ingest then asks for a replay and holds back what comes meanwhile, for one lag more. Without a replay
// endpoint it goes on with what it has, as the process is the same one: what was lost is never known.
func (f *world) announce(e *engine) {
	if len(e.step.Events) == 0 {
		return
	}
	lost := f.o.Loss > 0 && f.lose.Float64() < f.o.Loss
	if lost && f.o.NoReplay {
		return
	}
	b := f.router.index.fold(e.number, e.life, e.step.Events)
	w := &e.wire
	if lost {
		w.gap = true
		if b != nil {
			w.lost = append(w.lost, b)
		}
		return
	}
	at := f.clock.now + f.o.Lag
	if w.gap {
		at += f.o.Lag
	}
	w.shown = max(w.shown, at)
	for _, missed := range w.lost {
		f.clock.at(w.shown, action{kind: visible, batch: missed})
	}
	w.gap, w.lost = false, w.lost[:0]
	if b != nil {
		f.clock.at(w.shown, action{kind: visible, batch: b})
	}
}
