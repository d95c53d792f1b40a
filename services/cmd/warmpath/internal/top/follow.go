package top

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler"
	"github.com/warmpath/warmpath/services/cmd/warmpath/internal/explain"
)

const (
	every     = time.Second
	tryAgain  = time.Second
	waitsFor  = 6 * time.Second // that a first picture waits for routers that say nothing
	connectIn = 10 * time.Second
)

// Follow calls show, from one goroutine, with a picture at once and then each second, until ctx ends; also while NATS
// is away. It reads, and makes nothing in NATS.
func Follow(ctx context.Context, url string, show func(*Picture)) {
	f := newFollower(ctx, url)
	defer f.leave()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for now := time.Now(); ; {
		f.model.Tick(now, f.away())
		p := f.model.Picture()
		show(&p)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case now = <-tick.C:
				waiting = false
			case h := <-f.heard:
				f.take(h)
			}
		}
	}
}

// Once returns the first picture that has all there is: the fleet, the logged decisions, and each router's rates. It
// does not wait long for routers that say nothing, nor for a NATS that is not there.
func Once(ctx context.Context, url string) (*Picture, error) {
	f := newFollower(ctx, url)
	defer f.leave()
	begun, met := time.Now(), time.Time{}
	tick := time.NewTicker(every / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case h := <-f.heard:
			f.take(h)
		case now := <-tick.C:
			why := f.away()
			f.model.Tick(now, why)
			switch {
			case f.log && met.IsZero():
				met = now
			case met.IsZero() && now.Sub(begun) > connectIn:
				return nil, fmt.Errorf("look at %s: %s after %s", url, why, connectIn)
			}
			if f.log && (f.model.Settled() || now.Sub(met) > waitsFor) {
				p := f.model.Picture()
				return &p, nil
			}
		}
	}
}

// follower is a model and where it hears from.
type follower struct {
	model Model
	heard chan any

	leave func()    // ends what hears, and returns when it has ended
	conn  *bus.Conn // nil before there is one
	why   string    // nothing can be seen yet
	log   bool      // the log of decisions was read to its end
}

// What a follower hears of beside reports.
type (
	connected struct{ conn *bus.Conn }
	hindered  string
	saw       struct{ view *fleet.View }
	said      []byte
	decided   struct{ record autoscaler.Record }
	caughtUp  struct{}
)

func newFollower(ctx context.Context, url string) *follower {
	f := &follower{model: Model{URL: url}, heard: make(chan any, 1024), why: "connecting"}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	f.leave = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		f.connect(ctx, url)
	}()
	return f
}

func (f *follower) away() string {
	if f.conn != nil && f.why == "" && !f.conn.Up() {
		return "the connection is lost"
	}
	return f.why
}

func (f *follower) take(h any) {
	switch h := h.(type) {
	case connected:
		f.conn = h.conn
	case hindered:
		f.why = string(h)
	case saw:
		f.why = ""
		f.model.View(h.view)
	case said:
		f.model.Report(h, time.Now())
	case decided:
		f.model.Decide(h.record)
	case caughtUp:
		f.log = true
	}
}

// tell hands over what was heard. It waits for room, so that the log is read no faster than it is folded.
func (f *follower) tell(ctx context.Context, h any) {
	select {
	case f.heard <- h:
	case <-ctx.Done():
	}
}

// connect ends with ctx. The log is discarded: a terminal that is drawn upon is no place for it, and the picture says
// whether NATS is there.
func (f *follower) connect(ctx context.Context, url string) {
	quiet := slog.New(slog.DiscardHandler)
	conn, err := bus.Connect(ctx, url, bus.Options{Name: "warmpath top", Log: quiet})
	if err != nil {
		return // ctx has ended
	}
	defer conn.Close()
	f.tell(ctx, connected{conn})
	var watcher *fleet.Watcher
	for watcher == nil {
		if watcher, err = fleet.Watch(ctx, conn, quiet); err != nil {
			f.tell(ctx, hindered("nothing of Warmpath is there yet"))
			if sleep(ctx, tryAgain) != nil {
				return
			}
		}
	}
	stop, err := conn.Listen(bus.ReportSubject("*", "*"), func(_ string, data []byte) {
		select {
		case f.heard <- said(data): // what comes too fast is dropped: the next report says it all again
		default:
		}
	})
	if err != nil {
		f.tell(ctx, hindered(err.Error()))
		return
	}
	defer stop()
	go f.decisions(ctx, conn)
	for {
		changed := watcher.Changed()
		f.tell(ctx, saw{watcher.View()})
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// decisions follows the log of decisions from a while ago on; where the stream is made anew, from its beginning.
func (f *follower) decisions(ctx context.Context, conn *bus.Conn) {
	for {
		span := bus.Span{Stream: bus.Requests, Subjects: []string{bus.AllScales}, Since: time.Now().Add(-history - 2*time.Minute)}
		read := func(m bus.Message) {
			if r, err := explain.Parse(m); err == nil {
				f.tell(ctx, decided{r})
			}
		}
		state, err := conn.StreamState(ctx, bus.Requests)
		if err == nil {
			if span.To = state.Last; span.To > 0 {
				err = conn.Read(ctx, span, read)
			}
		}
		if err == nil {
			f.tell(ctx, caughtUp{})
			span.From, span.To, span.Created = state.Last+1, 0, state.Created
			_ = conn.Read(ctx, span, read)
		}
		if sleep(ctx, tryAgain) != nil {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
