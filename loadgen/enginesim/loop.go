package enginesim

import (
	"context"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// clock places steps on absolute deadlines: a step ends at the end of the one before plus its own time, however late
// its driver woke up. A driver that falls behind so catches up, and n steps take exactly the sum of their times.
type clock struct {
	scale float64
	end   time.Time
}

// next returns when a step of duration d ends that could begin at the end of the last one, but not before ready.
func (c *clock) next(ready time.Time, d time.Duration) time.Time {
	if ready.After(c.end) {
		c.end = ready
	}
	c.end = c.end.Add(time.Duration(float64(d) / c.scale))
	return c.end
}

// run steps the core until ctx ends.
func (e *Engine) run(ctx context.Context) {
	var (
		step  StepResult
		at    = clock{scale: e.o.TimeScale}
		timer = time.NewTimer(0)
	)
	defer timer.Stop()
	<-timer.C
	for {
		e.mu.Lock()
		worked, life, ready := e.core.Step(&step), e.life, e.arrival
		if !worked {
			e.settle()
		}
		e.mu.Unlock()
		if !worked {
			select {
			case <-e.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if e.o.EarlyEvents {
			e.publish(&step, life)
		}
		due := at.next(ready, step.Duration)
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		late := time.Since(due)
		e.finish(&step, life)
		if e.o.Stepped != nil {
			e.o.Stepped(late)
		}
	}
}

// settle tells those who wait in Quiesce that nothing more will come. The lock is held.
func (e *Engine) settle() {
	e.metrics.observe(e.core.Stats())
	if e.core.pulling > 0 {
		return
	}
	select {
	case <-e.quiet:
	default:
		close(e.quiet)
	}
}

// finish is the end of a step: events go out, and tokens to their clients. What belongs to an earlier life is dropped.
func (e *Engine) finish(step *StepResult, life int) {
	if !e.o.EarlyEvents {
		e.publish(step, life)
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if life != e.life {
		// Restart ended what the old core still had; what this step finished, it had not.
		for _, o := range step.Outputs {
			if o.Finished {
				fail(o.Request, ErrRestarted)
			}
		}
		return
	}
	for _, p := range step.Pulls {
		e.done.Go(func() { e.fetched(p, life) }) // in next to no time: real time has no network to model
	}
	e.metrics.observe(e.core.Stats())
	for _, o := range step.Outputs {
		if c, ok := o.Request.Tag.(*choice); ok {
			if o.Finished && c.handed != nil {
				e.keep(c.handed, o.Request)
			}
			e.metrics.token(c, &o, now)
			c.call.push(emitted{choice: c.index, token: e.core.Token(o.Request, o.Index), index: o.Index, hit: o.Hit, last: o.Finished})
		}
	}
}

// publish sends the events of a step, if it has any, as one batch of the present time.
func (e *Engine) publish(step *StepResult, life int) {
	if len(step.Events) == 0 {
		return
	}
	batch := kvevent.Batch{
		TS: float64(time.Now().UnixNano()) / 1e9, Rank: e.o.Rank, HasRank: true, Events: step.Events,
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if life == e.life && e.wire != nil {
		e.wire.Publish(kvevent.Append(nil, &batch, e.o.Encoding))
	}
}
