package ingest

import (
	"encoding/binary"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

func TestGapsAreHealedByReplay(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	p.holds(e, held(1, 2))
	e.pub.DropLive(3)
	e.publish(e.stored(2, 3))
	e.publish(removed(3))
	e.publish(e.stored(2, 4))
	e.publish(e.stored(4, 5))
	first := p.holds(e, held(1, 2, 4, 5))
	// The last frame is lost and nothing follows: only the routine check can tell.
	e.pub.DropLive(1)
	e.publish(e.stored(5, 6))
	if g := p.holds(e, held(1, 2, 4, 5, 6)); g != first {
		t.Errorf("a gap began a new generation: %d after %d", g, first)
	}
	p.record(e, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK && r.Generation == first })
	if p.count("replays_total", "outcome=complete") < 3 {
		t.Errorf("replays: %v", p.count("replays_total"))
	}
}

func TestRestartBeginsANewLife(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	e.publish(e.stored(2, 3))
	first := p.holds(e, held(1, 2, 3))
	e.pub.Restart()
	e.publish(e.stored(0, 7))
	second := p.holds(e, held(7))
	e.pub.Restart() // and says nothing
	third := p.holds(e, held())
	if !(first < second && second < third) {
		t.Errorf("generations %d %d %d", first, second, third)
	}
	p.record(e, "of the last life", func(r fleet.Engine) bool { return r.State == fleet.OK && r.Generation == third })
}

// A restarted engine may have the very sequence that is expected next; its process start tells.
func TestAnotherProcessBeginsANewLife(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	e.config.Replay = ""
	p.ingest("a", e)
	p.holds(e, held())
	eventually(t, "subscription", func() bool { // without replays nothing else says that frames arrive
		e.pub.SendRaw([]byte("x"))
		return p.count("bad_total", "reason=wrong_parts") > 0
	})
	e.publish(e.stored(0, 1, 2))
	p.holds(e, held(1, 2))
	e.pub.Restart()
	e.started.Add(100)
	p.holds(e, held())
	e.publish(e.stored(0, 3))
	p.holds(e, held(3))
	e.pub.DropLive(1)
	e.publish(e.stored(3, 4))
	e.publish(e.stored(4, 5))
	eventually(t, "block 5", func() bool { c, _, _ := p.log.copies(e.id); return c[copyKey(5, 0)] == 1 })
	p.record(e, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial && strings.Contains(r.Why, "lost") })
	e.publish(kvevent.Event{Kind: kvevent.Cleared})
	p.holds(e, held())
	p.record(e, "exact after a full clear", func(r fleet.Engine) bool { return r.State == fleet.OK })
}

func TestLateJoinBeyondTheBufferIsPartial(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{BufferSteps: 2})
	e.blocks = 4
	e.publish(e.stored(0, 1))
	e.publish(e.stored(1, 2))
	e.publish(e.stored(0, 8))
	e.publish(e.stored(8, 9))
	p.ingest("a", e)
	p.holds(e, held(8, 9))
	p.record(e, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial && strings.Contains(r.Why, "sequence 2") })
	e.publish(removed(2), removed(1), e.stored(9, 10, 11))
	p.holds(e, held(8, 9, 10, 11))
	p.record(e, "exact once all blocks are counted", func(r fleet.Engine) bool { return r.State == fleet.OK })
}

func TestUnfillableGapIsPartialAndDropsNothing(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	generation := p.holds(e, held(1, 2))
	e.pub.Skip()
	e.publish(e.stored(2, 3))
	if g := p.holds(e, held(1, 2, 3)); g != generation {
		t.Errorf("generation %d after %d", g, generation)
	}
	p.record(e, "partial", func(r fleet.Engine) bool {
		return r.State == fleet.Partial && strings.Contains(r.Why, "after sequence 0")
	})
}

// Whatever comes on the wire is counted and the engine goes on; what its own batches said is missing.
func TestGarbageIsCountedAndPassedOver(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1))
	p.holds(e, held(1))
	eventually(t, "subscription", func() bool {
		e.pub.SendRaw([]byte("one part"))
		return p.count("bad_total", "reason=wrong_parts") > 0
	})
	e.pub.SendRaw(nil, []byte("short"), []byte("x"))
	e.pub.SendRaw(nil, binary.BigEndian.AppendUint64(nil, 1<<63), []byte("far future"))
	huge := []byte{0x93, 0xcb, 0x41, 0xda, 0x55, 0x6e, 0x40, 0x08, 0, 0, 0xdd, 0xff, 0xff, 0xff, 0xff, 0x91}
	for _, payload := range [][]byte{nil, {0xc1}, huge, []byte("not msgpack at all"), {0xdd, 0xff, 0xff, 0xff, 0xff}} {
		e.pub.Publish(payload)
	}
	e.publish(e.stored(1, 2), kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{9}, BlockSize: -5})
	address := strings.TrimPrefix(e.config.Events, "tcp://")
	for range 5 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(strings.Repeat("\xff\x00garbage", 100)))
		c.Close()
	}
	e.publish(e.stored(2, 3))
	eventually(t, "block 3", func() bool { c, _, _ := p.log.copies(e.id); return c[copyKey(3, 0)] == 1 })
	for _, reason := range []string{"wrong_parts", "wrong_sequence", "undecodable"} {
		if p.count("bad_total", "reason="+reason) == 0 {
			t.Errorf("nothing counted as %s", reason)
		}
	}
	got, _, _ := p.log.copies(e.id)
	want := held(1, 2, 3)
	delete(got, copyKey(9, 0))
	if !maps.Equal(got, want) {
		t.Errorf("the log says %v, want %v", got, want)
	}
}

func TestNATSRestartLosesNothing(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	want := copies{}
	next := uint64(1)
	some := func(n int) {
		for range n {
			e.publish(e.stored(0, next))
			want[copyKey(next, 0)]++
			next++
		}
	}
	some(100)
	p.holds(e, want)
	for range 2 {
		some(50)
		p.server.Stop()
		some(200)
		p.startNATS()
		some(50)
		p.holds(e, want)
	}
}

// While NATS is away far more happens than a snapshot holds: a snapshot is published instead, and the end is exact.
func TestNATSAwayEndsInASnapshot(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1))
	p.holds(e, held(1))
	p.server.Stop()
	const keep, rounds = 3000, 60
	var want copies
	for round := range uint64(rounds) {
		want = held(1)
		var events []kvevent.Event
		for i := range uint64(keep) {
			h := 1000 + round*keep + i
			if round > 0 {
				events = append(events, removed(h-keep))
			}
			events = append(events, e.stored(0, h))
			want[copyKey(h, 0)]++
		}
		e.publish(events...)
		eventually(t, "the batch to be folded", func() bool { return p.count("batches_total") >= float64(round)+2 })
	}
	p.startNATS()
	p.holds(e, want)
	if p.log.seen("snapshot") == 0 {
		t.Error("no snapshot was published")
	}
	e.publish(e.stored(1, 2))
	want[copyKey(2, 0)]++
	p.holds(e, want)
	if n := p.log.biggest(); n > maxMessage {
		t.Errorf("a message of %d bytes", n)
	}
}

func TestLargeStateIsCutIntoMessages(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	want := copies{}
	var events []kvevent.Event
	for chain := range uint64(40) {
		var hashes []uint64
		for i := range uint64(1000) {
			hashes = append(hashes, 1+chain*1000+i)
		}
		maps.Copy(want, held(hashes...))
		events = append(events, e.stored(0, hashes...))
	}
	e.publish(events[:20]...) // more than a message holds
	e.publish(events[20:]...)
	p.ingest("a", e)
	p.holds(e, want)
	if n := p.log.biggest(); n > maxMessage || n < maxMessage/2 {
		t.Errorf("largest message %d bytes", n)
	}
}

func TestASecondOwnerFencesTheFirst(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1))
	first := p.holds(e, held(1))
	r := p.record(e, "known", func(r fleet.Engine) bool { return r.Generation == first })
	b := newBucket(bus.EventSubject(r.Pool, fleet.Bucket(e.id)), "rival", nil, time.Second, quiet(), newMetrics(nil))
	claim, err := b.encode([]*eventsv1.Part{claimPart()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.conn.Writer(b.name).Claim(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	e.publish(e.stored(1, 2))
	second := p.holds(e, held(1, 2)) // the log reader fails the test if anything is written under the rival's claim
	if second != first || p.count("fenced_total") != 1 {
		t.Errorf("generation %d after %d, fenced %v times", second, first, p.count("fenced_total"))
	}
}

// Two replicas share the buckets; when one goes, the other takes over, and nothing is written twice.
func TestReplicasShareBuckets(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	var engines []*engine
	for i := range 8 {
		e := newEngine(t, 16, kvwire.PublisherOptions{})
		owner := []string{"a", "b"}[i%2] // ports are random, so an id is sought that this one owns
		for ownerOf(fleet.BucketOf(fleet.PoolID(model), e.id), []string{"a", "b"}) != owner {
			e.config.Rank++
			e.id = e.config.ranks()[0].id
		}
		engines = append(engines, e)
	}
	p.ingest("a", engines...)
	a := p.metrics
	stopB := p.ingest("b", engines...)
	b := p.metrics
	owned := func() (na, nb float64) {
		p.metrics = a
		na = p.count("engines")
		p.metrics = b
		return na, p.count("engines")
	}
	eventually(t, "all engines owned once", func() bool { na, nb := owned(); return na == 4 && nb == 4 })
	for i, e := range engines {
		e.publish(e.stored(0, uint64(i+1)))
	}
	for i, e := range engines {
		p.holds(e, held(uint64(i+1)))
	}
	stopB()
	for i, e := range engines {
		e.publish(e.stored(uint64(i+1), 100))
		p.holds(e, held(uint64(i+1), 100))
	}
	eventually(t, "a owns all", func() bool { na, _ := owned(); return na == 8 })
}

func TestGoneAndBack(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1))
	first := p.holds(e, held(1))
	e.down.Store(true)
	p.record(e, "gone", func(r fleet.Engine) bool { return r.State == fleet.Gone && r.Generation == first })
	e.down.Store(false)
	// Readers have dropped it, so its state is written again, as that of a later generation.
	p.record(e, "back", func(r fleet.Engine) bool { return r.State == fleet.OK && r.Generation > first })
	p.holds(e, held(1))
}

func TestRecords(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	plain, odd, deaf := newEngine(t, 16, kvwire.PublisherOptions{}), newEngine(t, 24, kvwire.PublisherOptions{}), newEngine(t, 16, kvwire.PublisherOptions{})
	deaf.config.Events, deaf.config.Replay = "", ""
	stop := p.ingest("a", plain)
	r := p.record(plain, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK })
	if r.Pool != fleet.PoolID(plain.model) || r.BlockSize != 16 || r.Blocks != plain.blocks || len(r.Models) != 2 ||
		r.Models[1].Parent != plain.model || r.Models[0].MaxModelLen != 4096 || r.URL != plain.config.URL || r.Ranks != 1 {
		t.Errorf("record %+v", r)
	}
	stop()
	p.ingest("a", odd, deaf)
	p.record(odd, "refused with both sizes", func(r fleet.Engine) bool {
		return r.State == fleet.Blind && strings.Contains(r.Why, "24") && strings.Contains(r.Why, "16")
	})
	p.record(deaf, "blind", func(r fleet.Engine) bool { return r.State == fleet.Blind && r.Why != "" })
	p.record(plain, "forgotten", func(r fleet.Engine) bool { return r.ID == "" })
}

func TestRunRefusesCollisions(t *testing.T) {
	a, _ := ParseEngine("http://127.0.0.1:1")
	b, _ := ParseEngine("http://127.0.0.1:2")
	if err := Run(t.Context(), Config{NATS: "nats://127.0.0.1:1", Engines: []Engine{a, b}, Log: quiet()}); err == nil {
		t.Error("two engines at one endpoint were accepted")
	}
}

// What is folded when ingest is told to stop is in the log when it has stopped.
func TestTheRestIsPublishedAtTheEnd(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.times.flush = time.Minute
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e)
	e.publish(e.stored(0, 1_000_000))
	p.holds(e, held(1_000_000))
	want := held(1_000_000)
	var events []kvevent.Event
	for chain := range uint64(200) {
		var hashes []uint64
		for i := range uint64(500) {
			hashes = append(hashes, 1+chain*500+i)
		}
		maps.Copy(want, held(hashes...))
		events = append(events, e.stored(0, hashes...))
	}
	e.publish(events...)
	eventually(t, "the batch to be folded", func() bool { return p.count("batches_total") == 2 })
	stop()
	before, err := p.conn.StreamState(t.Context(), bus.Events)
	if err != nil {
		t.Fatal(err)
	}
	p.holds(e, want)
	if now, err := p.conn.StreamState(t.Context(), bus.Events); err != nil || now.Last != before.Last {
		t.Errorf("the log grew to %d from %d after Run had returned (%v)", now.Last, before.Last, err)
	}
}

// Without NATS there is nothing to wait for.
func TestStopWithoutNATS(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.times.flush = time.Hour
	stop := p.ingest("a", e)
	e.publish(e.stored(0, 1))
	p.holds(e, held(1))
	p.server.Stop()
	e.publish(e.stored(1, 2))
	eventually(t, "the batch to be folded", func() bool { return p.count("batches_total") == 2 })
	stop()
}

// An engine that comes back with another size begins anew; another one in its bucket goes on undisturbed.
func TestNeighboursInABucketStayUndisturbed(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	a := newEngine(t, 16, kvwire.PublisherOptions{BufferSteps: 1}) // read anew it would be partial
	b := newEngine(t, 16, kvwire.PublisherOptions{})
	for fleet.Bucket(b.id) != fleet.Bucket(a.id) {
		b.config.Rank++
		b.id = b.config.ranks()[0].id
	}
	p.ingest("x", a, b)
	p.holds(a, held())
	for i := range uint64(3) {
		a.publish(a.stored(i, i+1))
		p.holds(a, held([]uint64{1, 2, 3}[:i+1]...))
	}
	b.publish(b.stored(0, 9))
	p.holds(b, held(9))
	before := p.record(a, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK && r.Generation > 0 })
	b.grown.Add(50)
	p.record(b, "with its new size", func(r fleet.Engine) bool { return r.Blocks == b.blocks+50 && r.State == fleet.OK })
	p.holds(b, held(9))
	a.publish(a.stored(3, 4))
	p.holds(a, held(1, 2, 3, 4))
	if after := p.record(a, "there", func(r fleet.Engine) bool { return r.ID != "" }); after.Generation != before.Generation || after.State != fleet.OK {
		t.Errorf("its neighbour was read anew: %+v, before %+v", after, before)
	}
}
