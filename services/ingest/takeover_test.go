package ingest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// mortal runs ingest like ingest does, but what it has not published when it is stopped is lost.
func (p *plane) mortal(instance string, engines ...*engine) (kill func()) {
	q := *p
	q.times.flush = time.Nanosecond
	kill = q.ingest(instance, engines...)
	p.metrics = q.metrics
	return kill
}

// traffic is an engine that goes on storing and removing until it is stopped.
type traffic struct {
	churn churn
	end   chan struct{}
	done  chan struct{}
}

func (e *engine) busy(seed uint64) *traffic {
	f := &traffic{churn: churn{r: rand.New(rand.NewPCG(seed, 3))}, end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-f.end:
				return
			case <-pace.C:
				e.publish(f.churn.events(20, 400)...)
			}
		}
	}()
	return f
}

// stop returns what the engine holds.
func (f *traffic) stop() copies {
	close(f.end)
	<-f.done
	return held(f.churn.held...)
}

// options are those of an engine's fold.
func (p *plane) options(e *engine) prefix.EngineOptions {
	p.t.Helper()
	seed, err := fleet.Seed(p.t.Context(), p.conn)
	if err != nil {
		p.t.Fatal(err)
	}
	return prefix.EngineOptions{Seed: seed, Pool: fleet.PoolID(e.model), BlockSize: p.log.canonical, Blocks: e.blocks}
}

// rival is another owner of an engine's bucket, who writes what a test wants.
type rival struct {
	p *plane
	b *bucket
}

func (p *plane) rival(e *engine) *rival {
	p.t.Helper()
	subject := bus.EventSubject(fleet.PoolID(e.model), fleet.Bucket(e.id))
	r := &rival{p, newBucket(subject, "rival", p.conn.Writer(subject), time.Second, quiet(), newMetrics(nil))}
	data, err := r.b.encode([]*eventsv1.Part{claimPart()})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := r.b.w.Claim(p.t.Context(), data); err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (r *rival) writes(parts ...*eventsv1.Part) {
	r.p.t.Helper()
	data, err := r.b.encode(parts)
	if err != nil {
		r.p.t.Fatal(err)
	}
	r.raw(data)
}

func (r *rival) raw(data []byte) {
	r.p.t.Helper()
	if _, err := r.b.w.Publish(r.p.t.Context(), data); err != nil {
		r.p.t.Fatal(err)
	}
}

// exact waits until the log says what the engine holds, and its record that nothing is partial and that the life is the
// one that began at generation, if that is not 0.
func (p *plane) exact(e *engine, want copies, generation uint64) uint64 {
	p.t.Helper()
	got := p.holds(e, want)
	r := p.record(e, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK && r.Generation == got })
	if generation != 0 && r.Generation != generation {
		p.t.Errorf("generation %d after %d", r.Generation, generation)
	}
	return got
}

// Owners die one after the other while the engine goes on: each successor takes the life over where the log left it.
func TestTakeoverContinuesTheLife(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	kill := p.mortal("a0", e)
	first := p.holds(e, held())
	traffic := e.busy(1)
	for _, next := range []string{"a1", "a2", "a3", "a4"} {
		eventually(t, "deltas", func() bool { return p.count("published_bytes_total") > 10_000 })
		kill()
		kill = p.mortal(next, e)
		eventually(t, "batches", func() bool { return p.count("batches_total") > 20 })
		if n := p.count("resets_total"); n != 0 {
			t.Errorf("%s began %v lives", next, n)
		}
	}
	p.exact(e, traffic.stop(), first)
	if p.log.seen("reset") != 1 || p.log.seen("snapshot") == 0 {
		t.Errorf("%d resets, %d snapshots", p.log.seen("reset"), p.log.seen("snapshot"))
	}
}

// What the replay brings is in the log as a snapshot, not as deltas; where it brings nothing, nothing is written.
func TestTakeoverWritesWhatTheReplayChanged(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.times.digest = time.Hour
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	first := p.exact(e, held(1, 2), 0)
	stop()
	deltas := p.log.seen("delta")
	stop = p.ingest("b", e)
	eventually(t, "the engine has replayed", func() bool { return p.count("replays_total", "outcome=complete") > 0 })
	e.publish(e.stored(2, 3))
	p.exact(e, held(1, 2, 3), first)
	if p.log.seen("delta") != deltas+1 || p.log.seen("snapshot") != 0 {
		t.Errorf("%d deltas after %d, %d snapshots", p.log.seen("delta"), deltas, p.log.seen("snapshot"))
	}
	stop()
	e.publish(e.stored(3, 4))
	p.ingest("c", e)
	p.exact(e, held(1, 2, 3, 4), first)
	if p.log.seen("delta") != deltas+1 || p.log.seen("snapshot") != 1 || p.log.seen("reset") != 1 {
		t.Errorf("%d deltas after %d, %d snapshots, %d resets", p.log.seen("delta"), deltas, p.log.seen("snapshot"), p.log.seen("reset"))
	}
}

// The old owner died after it had written a part of a batch.
func TestTakeoverInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	first := p.exact(e, held(1, 2), 0)
	stop()
	all := []kvevent.Event{removed(2), e.stored(0, 5), e.stored(1, 6)}
	e.publish(all...)
	fold := prefix.NewEngine(p.options(e))
	begin := e.stored(0, 1, 2)
	fold.Fold(&begin, nil)
	runs := fold.Fold(&all[0], nil)
	p.rival(e).writes(deltaPart(e.id, &eventsv1.Delta{Received: 1, Runs: []*eventsv1.Run{eventlog.Logged(&runs[0])},
		Batch: &eventsv1.Batch{Sequence: 1, Ts: e.ts, Operations: 1}}))
	p.ingest("b", e)
	p.exact(e, held(1, 5, 6), first)
	e.publish(e.stored(6, 7))
	p.exact(e, held(1, 5, 6, 7), first)
}

func TestTakeoverOfAnEngineThatRestarted(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	e.publish(e.stored(2, 3))
	first := p.exact(e, held(1, 2, 3), 0)
	stop()
	e.pub.Restart()
	e.publish(e.stored(0, 7)) // as many batches as before
	e.publish(e.stored(7, 8))
	stop = p.ingest("b", e)
	second := p.exact(e, held(7, 8), 0)
	stop()
	e.pub.Restart() // and has nothing to say
	p.ingest("c", e)
	third := p.exact(e, held(), 0)
	if !(first < second && second < third) {
		t.Errorf("generations %d %d %d", first, second, third)
	}
}

// What cannot be read in the log costs nothing but a replay from before it.
func TestTakeoverPassesDamageInTheLog(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	first := p.exact(e, held(1, 2), 0)
	stop()
	future, err := proto.Marshal(&eventsv1.Message{Version: eventlog.Version + 1, Owner: "rival", Counter: 2,
		Parts: []*eventsv1.Part{resetPart(e.id, "?")}})
	if err != nil {
		t.Fatal(err)
	}
	wrong := []*eventsv1.Run{{Copy: eventsv1.Change_CHANGE_ADDED, Hashes: []uint64{99}, Keys: []uint64{99}}}
	for i, garbage := range [][]byte{[]byte("\xff\xffgarbage"), future, nil, []byte("\xff")} {
		want := held(1, 2)
		for h := range i { // at first the engine has nothing to add
			if want[copyKey(uint64(10+h), 0)] = 1; h == i-1 {
				e.publish(e.stored(2, uint64(10+h)))
			}
		}
		r := p.rival(e)
		if garbage != nil {
			r.raw(garbage)
		} else {
			wrong[0].Tier = 77
			r.writes(deltaPart(e.id, &eventsv1.Delta{Received: 1, Runs: wrong, Batch: &eventsv1.Batch{Sequence: 90, Ts: 1}}))
		}
		// What follows the damage would be wrong to fold.
		wrong[0].Tier = 0
		r.writes(deltaPart(e.id, &eventsv1.Delta{Received: 1, Runs: wrong, Batch: &eventsv1.Batch{Sequence: 91, Ts: 1}}))
		stop := p.ingest("b", e)
		// The log may have been exact before it was taken over.
		eventually(t, fmt.Sprintf("the damage of case %d to be counted", i), func() bool { return p.count("log_refused_total") > 0 })
		p.exact(e, want, first)
		stop()
	}
}

// Two processes of one name write to one bucket: whoever claims last writes, and every state that they leave is whole.
func TestTwoOwnersFight(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.times.fenced = 50 * time.Millisecond
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	first := p.holds(e, held())
	one := p.metrics
	stop := p.ingest("a", e)
	other := p.metrics
	traffic := e.busy(2)
	eventually(t, "both were fenced", func() bool {
		p.metrics = one
		n := p.count("fenced_total")
		p.metrics = other
		return n > 3 && p.count("fenced_total") > 3
	})
	want := traffic.stop()
	p.exact(e, want, first)
	stop()
	e.publish(e.stored(0, 1_000_000))
	want[copyKey(1_000_000, 0)]++
	p.exact(e, want, first)
}

// subscribed waits until ingest hears what an engine says.
func (p *plane) subscribed(e *engine) {
	p.t.Helper()
	eventually(p.t, "subscription", func() bool {
		e.pub.SendRaw([]byte("x"))
		return p.count("bad_total", "reason=wrong_parts") > 0
	})
}

// handover runs a, then b, who should own the engine's bucket.
func (p *plane) handover(e *engine, meanwhile func()) {
	p.t.Helper()
	for ownerOf(fleet.BucketOf(fleet.PoolID(model), e.id), []string{"a", "b"}) != "b" {
		e.config.Rank++
		e.id = e.config.ranks()[0].id
	}
	p.ingest("a", e)
	a := p.metrics
	p.holds(e, held())
	p.subscribed(e)
	meanwhile()
	p.ingest("b", e)
	b := p.metrics
	eventually(p.t, "b owns the bucket and a does not", func() bool {
		p.metrics = a
		n := p.count("engines")
		p.metrics = b
		return n == 0 && p.count("engines") == 1
	})
}

// An engine that cannot replay is handed over without loss: the old owner reads until the new one has claimed, whose
// socket was open before.
func TestHandoverWithoutReplays(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	e.config.Replay = ""
	var first uint64
	var busy *traffic
	p.handover(e, func() {
		e.publish(e.stored(0, 1_000_000))
		first = p.exact(e, held(1_000_000), 0)
		busy = e.busy(3)
	})
	eventually(t, "batches", func() bool { return p.count("batches_total") > 20 })
	want := busy.stop()
	want[copyKey(1_000_000, 0)]++
	p.exact(e, want, first)
	if p.log.seen("reset") != 1 {
		t.Errorf("%d resets", p.log.seen("reset"))
	}
}

// Without replays, a process that began after the last batch, or that nobody knows, is another life.
func TestTakeoverWithoutReplaysAsksForTheProcess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		started   int64
		continues bool
	}{"older": {time.Now().Unix() - 1000, true}, "younger": {time.Now().Unix() + 1000, false}, "unknown": {0, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			e := newEngine(t, 16, kvwire.PublisherOptions{})
			e.config.Replay = ""
			stop := p.ingest("a", e)
			p.holds(e, held())
			p.subscribed(e)
			e.publish(e.stored(0, 1))
			e.publish(e.stored(1, 2))
			first := p.exact(e, held(1, 2), 0)
			stop()
			e.started.Store(c.started)
			p.ingest("b", e)
			p.subscribed(e)
			want := held()
			if c.continues {
				want = held(1, 2)
			}
			if g := p.holds(e, want); (g == first) != c.continues {
				t.Errorf("generation %d after %d", g, first)
			}
		})
	}
}

// Why an engine is known in part only outlives its owner, and so does what ends that.
func TestTakeoverKeepsPartial(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{BufferSteps: 2})
	e.blocks = 4
	for i, h := range []uint64{1, 2, 8, 9} {
		e.publish(e.stored([]uint64{0, 1, 0, 8}[i], h))
	}
	stop := p.ingest("a", e)
	first := p.holds(e, held(8, 9))
	why := p.record(e, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial }).Why
	stop()
	stop = p.ingest("b", e)
	eventually(t, "the engine is known", func() bool { return p.count("engines", "state=partial") == 1 })
	if r := p.record(e, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial }); r.Why != why || r.Generation != first {
		t.Errorf("record %+v, the reason was %q", r, why)
	}
	stop()
	p.ingest("c", e)
	e.publish(e.stored(9, 10, 11)) // a late joiner that counts all blocks knows them
	p.exact(e, held(8, 9, 10, 11), first)
}

// The buffer does not reach back to the log's last batch: what was removed meanwhile is unknown, and said to be.
func TestTakeoverBeyondTheBufferIsPartial(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{BufferSteps: 2})
	stop := p.ingest("a", e)
	p.holds(e, held())
	e.publish(e.stored(0, 1))
	first := p.exact(e, held(1), 0)
	stop()
	for h := range uint64(4) {
		e.publish(e.stored(h+1, h+2))
	}
	p.ingest("b", e)
	if g := p.holds(e, held(1, 4, 5)); g != first {
		t.Errorf("generation %d after %d", g, first)
	}
	p.record(e, "partial", func(r fleet.Engine) bool {
		return r.State == fleet.Partial && strings.Contains(r.Why, "after sequence 0")
	})
}
