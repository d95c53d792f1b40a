package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// session reads one rank's events and folds them into its cache: life decides, the session does. One goroutine reads
// the SUB socket into the inbox, always; another takes from there, replays and folds.
type session struct {
	rank    rank
	cache   *cache
	blocks  int // capacity in blocks
	log     *slog.Logger
	m       *metrics
	times   times
	process func(context.Context) (float64, bool) // asks the engine when its process started

	life     life // owned by run
	held     []kvwire.Frame
	decoder  kvevent.Decoder
	batch    kvevent.Batch // of the live frame in hand
	replayed kvevent.Batch
	lives    int
	lastSign float64 // by the engine's clock, when the process of the life that is being taken over ran; 0 when none is
	clock    offset
	followed time.Time // when the last frame came that followed the one before it
	checked  time.Time // when the last routine check ended
	in       *inbox
	another  chan struct{} // holds one token when the engine's process is another
	again    chan struct{} // holds one token when the life is to be checked now
	wiped    chan wipe     // holds what voids the cache
	heard    atomic.Uint64 // batches with events that came
	answered atomic.Int64  // when the engine last said that it had replayed all, Unix nanoseconds; 0 never

	mu      sync.Mutex
	logged  map[string]bool // causes of bad input
	partial string
	started float64 // when the engine's process started, as known since the life began; 0 unknown
	least   float64 // clock offset in seconds, if timed
	timed   bool
	row     int    // reports in a row that contradict what the index claims of the generation
	rowOf   uint64 // of which this is
	asleep  bool   // with its cache discarded
}

func newSession(r rank, c *cache, log *slog.Logger, m *metrics, t times) *session {
	return &session{rank: r, cache: c, log: log, m: m, times: t, life: life{replays: r.replay != ""}, in: newInbox(),
		another: make(chan struct{}, 1), again: make(chan struct{}, 1), wiped: make(chan wipe, 1), logged: map[string]bool{}}
}

// run reads until ctx ends.
func (s *session) run(ctx context.Context) {
	var reader sync.WaitGroup
	defer reader.Wait()
	reader.Go(func() { s.subscribe(ctx) })
	select {
	case <-s.cache.adopted:
		s.resume(ctx)
	case <-ctx.Done():
	}
	check := time.NewTimer(s.times.firstCheck)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.in.ready:
			s.drain(ctx)
		case <-s.another:
			v := s.life.restarted()
			s.begin(v.reset)
			s.settle(ctx, v.next, false)
		case <-s.again:
			s.check(ctx)
		case w := <-s.wiped:
			s.forget(w)
		case <-check.C:
			check.Reset(s.routine(ctx))
		}
		s.tell()
	}
}

// seldom is how many times fewer routine checks an engine gets whose frames follow one another: the next frame tells
// what is missing, and a check costs a connection on both sides.
const seldom = 4

// routine checks, unless all is well and frames follow one another, and returns when to look again.
func (s *session) routine(ctx context.Context) time.Duration {
	now := time.Now()
	quiet, sure := now.Sub(s.followed), s.life.partial == "" && !s.life.unsure
	if sure && quiet < s.times.check && now.Sub(s.checked) < seldom*s.times.check {
		return s.times.check - quiet
	}
	s.check(ctx)
	s.checked = time.Now()
	return s.times.check
}

// check finds out whether the life is the same and nothing is missing at the end, which no later frame may ever tell.
func (s *session) check(ctx context.Context) {
	if s.life.replays {
		s.settle(ctx, askReplay, true)
	}
}

func (s *session) subscribe(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, s.times.probe) {
		err := kvwire.Subscribe(ctx, s.rank.events, func(f kvwire.Frame) {
			if !s.in.put(f) {
				s.bad("overflow", errors.New("frames come faster than they are folded"))
			}
		}, func(reason string) { s.bad(reason, errors.New("a message of another shape than vLLM's")) })
		if err != nil {
			s.bad("endpoint", err)
		}
	}
}

// batchInHand is a decoded frame.
type batchInHand struct {
	stamp    stamp
	received time.Time
	batch    *kvevent.Batch
	err      error
}

func (s *session) decode(into *kvevent.Batch, f kvwire.Frame) batchInHand {
	h := batchInHand{stamp: stamp{seq: f.Seq}, received: f.Received, batch: into}
	if h.err = s.decoder.Decode(f.Payload, into); h.err == nil && into.TS > 0 && !math.IsInf(into.TS, 0) {
		h.stamp.ts = into.TS
	}
	return h
}

// drain judges all frames in the inbox. A reset empties it.
func (s *session) drain(ctx context.Context) {
	for s.held = s.in.take(); len(s.held) > 0 && ctx.Err() == nil; {
		f := s.held[0]
		s.held = s.held[1:]
		s.offer(ctx, f)
		s.tell()
	}
}

func (s *session) offer(ctx context.Context, f kvwire.Frame) {
	h := s.decode(&s.batch, f)
	if h.stamp.ts != 0 {
		s.clock.add(h.received, h.stamp.ts)
	}
	for first, lives := true, s.lives; ctx.Err() == nil; first = false {
		v := s.life.live(h.stamp)
		s.act(v, h)
		if first && v.apply {
			s.followed = h.received
		}
		if v.next == proceed {
			return
		}
		if first {
			s.m.gaps.Inc()
		}
		s.settle(ctx, v.next, false)
		if s.lives != lives && s.life.replays {
			return
		}
	}
}

// settle does what life asks for until it is content.
func (s *session) settle(ctx context.Context, next step, check bool) {
	for next != proceed && ctx.Err() == nil {
		var v verdict
		if next == judgeLife {
			v = s.life.judged(s.judge(ctx))
			s.act(v, batchInHand{})
		} else {
			v = s.replay(ctx, check)
		}
		next, check = v.next, false
	}
}

// replay asks for one replay and folds it as it comes.
func (s *session) replay(ctx context.Context, check bool) verdict {
	s.life.ask(check)
	began, replies := time.Now(), 0
	err := kvwire.Replay(ctx, s.rank.replay, s.life.from(), kvwire.ReplayOptions{
		Idle: s.times.replayIdle,
		Bad:  func(reason string) { s.bad(reason, errors.New("a replay message of another shape than vLLM's")) },
	}, func(f kvwire.Frame) {
		replies++
		h := s.decode(&s.replayed, f)
		s.act(s.life.reply(h.stamp), h)
	})
	if ctx.Err() != nil {
		return verdict{}
	}
	o := complete
	switch {
	case err == nil:
		s.answered.Store(time.Now().UnixNano())
	case replies > 0:
		o = cut
	default:
		o = silent
		if rest := s.times.replayIdle - time.Since(began); rest > 0 {
			pause(ctx, rest)
		}
	}
	s.m.replays.WithLabelValues([]string{complete: "complete", cut: "cut", silent: "silent"}[o]).Inc()
	v := s.life.end(o, time.Now())
	s.act(v, batchInHand{})
	return v
}

// begin makes the cache that of a new life.
func (s *session) begin(reason string) {
	s.lives++
	s.lastSign = 0
	s.log.Info("new life", "engine", s.rank.name, "reason", reason)
	s.m.resets.Inc()
	s.cache.reset(reason)
	if s.life.replays {
		s.in.take()
		s.held = nil
	}
}

// act carries out a verdict, but for its next step.
func (s *session) act(v verdict, h batchInHand) {
	if v.reset != "" {
		s.begin(v.reset)
		s.mu.Lock()
		s.started = 0 // the process may be another: the next look at the engine tells
		s.mu.Unlock()
	}
	if !v.apply {
		return
	}
	if h.err != nil {
		s.bad("undecodable", h.err)
		s.life.unread("batch %d cannot be read")
		s.mark()
		s.cache.skip(h.stamp, h.received)
		return
	}
	s.mark()
	if h.batch.Bad > 0 {
		s.m.bad.WithLabelValues("event").Add(float64(h.batch.Bad - 1))
		s.bad("event", errors.Join(h.batch.Errs...))
	}
	s.refuseHuge(h.batch)
	s.m.batches.Inc()
	if len(h.batch.Events) > 0 {
		s.heard.Add(1)
	}
	s.m.events.Add(float64(len(h.batch.Events)))
	s.m.ignored.Add(float64(h.batch.Ignored))
	s.m.blocks.Add(float64(s.cache.apply(h.stamp, h.received, h.batch.Events)))
	if s.life.partial != "" {
		s.recover(h.batch.Events)
	}
	if h.batch.Bad > 0 {
		s.life.unread("events of batch %d cannot be read")
	}
	s.mark()
}

// maxKeys bounds the index keys that one engine block may show. A run of the log names whole blocks, and must fit a
// message.
const maxKeys = 4096

// refuseHuge drops the events that announce blocks of more tokens than the log can tell of.
func (s *session) refuseHuge(b *kvevent.Batch) {
	most := maxKeys * s.cache.options.BlockSize
	b.Events = slices.DeleteFunc(b.Events, func(ev kvevent.Event) bool {
		huge := ev.BlockSize > most
		if huge {
			b.Bad++
			s.bad("block_size", fmt.Errorf("blocks of %d tokens, more than %d", ev.BlockSize, most))
		}
		return huge
	})
}

// mark lets the log say whether the cache is known in part only. That replays break off is not for the log: whoever
// takes over finds it out anew.
func (s *session) mark() {
	if s.life.broken {
		s.cache.mark("", false)
		return
	}
	s.cache.mark(s.life.partial, s.life.late)
}

// recover ends a partial state: once gpu memory was cleared all that it holds is known, and a late joiner that counts as
// many copies there as the engine has blocks knows them all. Copies in other tiers are never known to be all.
func (s *session) recover(events []kvevent.Event) {
	cleared := slices.ContainsFunc(events, func(ev kvevent.Event) bool { return ev.Kind == kvevent.Cleared })
	stats, _ := s.cache.known()
	full := s.life.late && s.blocks > 0 && 100*stats.CopiesGPU >= 99*s.blocks
	if (cleared || full) && stats.Copies == stats.CopiesGPU {
		s.life.known()
	}
}

// judge asks the engine itself whether its process is still the same.
func (s *session) judge(ctx context.Context) sign {
	s.mu.Lock()
	before := s.started
	s.mu.Unlock()
	now, ok := s.process(ctx)
	switch {
	case !ok:
		return noSign
	case s.lastSign != 0 && now <= s.lastSign:
		return sameProcess
	case s.lastSign != 0:
		return otherProcess
	case before == 0:
		return noSign
	case math.Abs(now-before) < 0.5:
		return sameProcess
	}
	return otherProcess
}

// observe takes what the engine says of its process's start, at any time and from any goroutine.
func (s *session) observe(started float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started != 0 && math.Abs(s.started-started) >= 0.5 {
		token(s.another)
	}
	s.started = started
}

// bad counts input that could not be used, and logs it once for each cause.
func (s *session) bad(reason string, err error) {
	s.m.bad.WithLabelValues(reason).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.logged[reason] {
		s.logged[reason] = true
		s.log.Warn("an engine sent what cannot be used", "engine", s.rank.name, "reason", reason, "err", err)
	}
}

// tell publishes to other goroutines what only run may read.
func (s *session) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = s.life.partial
	s.least, s.timed = s.clock.least(time.Now())
}

func (s *session) told() (partial string, least float64, timed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partial, s.least, s.timed
}

// warn logs when the engine's clock is more than a second off, once until it is right again.
func (s *session) warn(least float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	off := math.Abs(least) > 1
	if off && !s.logged["clock"] {
		s.log.Warn("clocks differ: synchronise them, or event times and lag mean nothing", "engine", s.rank.name, "seconds", least)
	}
	s.logged["clock"] = off
}

// token puts a token into a channel that holds at most one.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
