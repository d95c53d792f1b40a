package index

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// journal is what a replica logs.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) has(words string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, "level=ERROR") && strings.Contains(line, words) {
			return true
		}
	}
	return false
}

// damage is something wrong that an engine's log may hold behind a reset and blocks 1 and 2.
type damage struct {
	name    string
	write   func(o *owner, engine string, generation uint64)
	counted string // metric
	logged  string // words of a line
}

func damages() []damage {
	refused := func(reason string) string { return "reason=" + fmt.Sprintf("%q", reason) }
	snapshot := func(engine string, generation uint64) []*eventsv1.Part {
		return snapshotsOf(engine, generation, []uint64{1, 2}, []uint64{3}, []uint64{4})
	}
	return []damage{
		{"bytes that are no message", func(o *owner, _ string, _ uint64) { o.raw([]byte("\xff\xffno message")) }, "refused_total", "reason=undecodable"},
		{"a message of a later version", func(o *owner, e string, g uint64) {
			o.counter++
			data, err := proto.Marshal(&eventsv1.Message{Version: 99, Owner: o.name, Counter: o.counter, Parts: snapshotsOf(e, g, []uint64{1})})
			if err != nil {
				o.Fatal(err)
			}
			o.raw(data)
		}, "refused_total", "reason=version"},
		{"a snapshot with a key changed on the way", func(o *owner, e string, g uint64) {
			parts := snapshot(e, g)
			parts[1].GetSnapshot().Runs[0].Keys[0] ^= 1 << 40
			o.write(parts...)
		}, "refused_total", "reason=snapshot"},
		{"a snapshot that counts otherwise", func(o *owner, e string, g uint64) {
			parts := snapshot(e, g)
			parts[2].GetSnapshot().Count++
			o.write(parts...)
		}, "refused_total", "reason=snapshot"},
		{"a snapshot with a change of no known kind", func(o *owner, e string, g uint64) {
			parts := snapshot(e, g)
			parts[0].GetSnapshot().Runs[0].Gpu = 77
			o.write(parts...)
		}, "refused_total", "reason=snapshot"},
		{"a snapshot broken off", func(o *owner, e string, g uint64) {
			o.write(snapshot(e, g)[:2]...)
			o.write(digestOf(e, 1, 2))
		}, "refused_total", refused("truncated snapshot")},
		{"a snapshot without its middle", func(o *owner, e string, g uint64) {
			parts := snapshot(e, g)
			o.write(parts[0], parts[2])
		}, "refused_total", refused("truncated snapshot")},
		{"a snapshot without its beginning", func(o *owner, e string, g uint64) {
			o.write(snapshot(e, g)[1:]...)
		}, "refused_total", refused("truncated snapshot")},
		{"a delta with a change of no known kind", func(o *owner, e string, _ uint64) {
			o.write(deltaOf(e, &eventsv1.Run{Copy: 77, Keys: []uint64{3}}))
		}, "refused_total", refused("unknown run")},
		{"a digest that differs", func(o *owner, e string, _ uint64) { o.write(digestOf(e, 1, 3)) }, "unequal_digests_total", "not what its owner published"},
	}
}

// bucket3 writes an engine with two blocks in bucket 3, and a sound one in bucket 4.
func (w *world) bucket3() (o *owner, engine string, generation, last uint64) {
	w.Helper()
	sound, f := w.owner("a", 4), engineIn(4, 0)
	sound.claim()
	w.record(f, sound.write(resetOf(f), show(f, 1)), fleet.OK)
	o, engine = w.owner("a", 3), engineIn(3, 0)
	o.claim()
	generation = o.write(resetOf(engine))
	w.record(engine, generation, fleet.OK)
	return o, engine, generation, o.write(show(engine, 1, 2))
}

// heals publishes a fresh snapshot and expects that the replica is sound again.
func (r *replica) heals(o *owner, engine string, generation uint64) {
	r.Helper()
	seq := o.write(snapshotOf(engine, generation, 1, 1, 1, 2, 3, 4, 5))
	f := engineIn(4, 0)
	r.expect(seq, map[string]string{engine: "5/5", f: "1/1"}, 1, 2, 3, 4, 5, 6)
	if got := r.match(seq, 1).Buckets; got != 1<<64-1 {
		r.Errorf("it covers %016x after the snapshot", got)
	}
	unequal := r.count("unequal_digests_total")
	seq = o.write(digestOf(engine, 5, 4, 3, 2, 1), show(engine, 6), digestOf(engine, 6, 5, 4, 3, 2, 1))
	r.expect(seq, map[string]string{engine: "6/6", f: "1/1"}, 1, 2, 3, 4, 5, 6)
	if now := r.count("unequal_digests_total"); now != unequal {
		r.Errorf("%v digests differ after the snapshot", now-unequal)
	}
}

// A replica that runs keeps the state that it has, says what is wrong, and asks.
func TestDamageLeavesTheRunningStateAlone(t *testing.T) {
	t.Parallel()
	for _, d := range damages() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			w, log := newWorld(t), new(journal)
			o, e, generation, last := w.bucket3()
			r := w.startIndex(Config{Log: slog.New(slog.NewTextHandler(log, nil))})
			asks := w.asked(3)
			before := r.match(last, 1, 2, 3)
			d.write(o, e, generation)
			w.wait(asks)
			seq := o.write() // an empty message: behind the damage
			if after := r.match(seq, 1, 2, 3); after.Buckets != 1<<64-1 || fmt.Sprint(depths(after)) != fmt.Sprint(depths(before)) {
				t.Errorf("before %v, after %v, it covers %016x", depths(before), depths(after), after.Buckets)
			}
			if r.count(d.counted) == 0 || r.count("asks_total") != 1 || !log.has(d.logged) {
				t.Errorf("%s is %v, asked %v times, logged %v", d.counted, r.count(d.counted), r.count("asks_total"), log.has(d.logged))
			}
			r.heals(o, e, generation)
		})
	}
}

// A replica that starts does not answer for the bucket until it has a snapshot, which it asks for; it does for all
// others.
func TestDamageKeepsAStartingReplicaFromItsBucketAlone(t *testing.T) {
	t.Parallel()
	all := append(damages(), damage{"a log that begins behind the engine's beginning", func(o *owner, _ string, _ uint64) {
		id := fleet.BucketID{Pool: testPool, N: 3}
		if err := fleet.PutPosition(o.Context(), o.conn, id, o.write()); err != nil {
			o.Fatal(err)
		}
	}, "asks_total", "cannot be answered for yet"})
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			w, log := newWorld(t), new(journal)
			o, e, generation, _ := w.bucket3()
			d.write(o, e, generation)
			seq := o.write()
			asks := w.asked(3)
			watcher, err := fleet.Watch(t.Context(), w.conn, quiet)
			if err != nil {
				t.Fatal(err)
			}
			r := w.startIndex(Config{Instance: "i", Log: slog.New(slog.NewTextHandler(log, nil))})
			w.wait(asks)
			got := r.match(seq, 1, 2)
			if got.Buckets != ^uint64(1<<3) || fmt.Sprint(depths(got)) != fmt.Sprint(map[string]string{engineIn(4, 0): "1/1"}) {
				t.Errorf("it covers %016x with %v", got.Buckets, depths(got))
			}
			announces := func(buckets uint64) func() bool {
				return func() bool {
					m := watcher.View().Members
					return len(m) == 1 && m[0].Ready && m[0].Buckets == buckets
				}
			}
			w.eventually("the other buckets are announced", announces(^uint64(1<<3)))
			if r.count(d.counted) == 0 || !log.has(d.logged) || !log.has("cannot be answered for yet") {
				t.Errorf("%s is %v, logged %v", d.counted, r.count(d.counted), log.has(d.logged))
			}
			r.heals(o, e, generation)
			if d.counted == "asks_total" { // a record is refreshed every two seconds: once is enough
				w.eventually("all buckets are announced", announces(1<<64-1))
			}
		})
	}
}

// Where the log tells nothing of the engine of any owned bucket, the replica is not ready at all, and a life that begins
// is as good as a snapshot.
func TestReplicaThatCanAnswerForNothingIsNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, e := w.owner("a", 3), engineIn(3, 0)
	w.record(e, o.claim(), fleet.OK) // of a reset that retention took
	asks := w.asked(3)
	r := w.bootIndex(Config{Shards: fleet.Buckets, Shard: 3})
	w.wait(asks)
	if why := r.health.Ready(); why == nil || !strings.Contains(why.Error(), "snapshots") {
		t.Errorf("ready is %v", why)
	}
	r.expect(o.write(resetOf(e), show(e, 1)), map[string]string{e: "1/1"}, 1, 2)
	w.eventually("ready", func() bool { return r.health.Ready() == nil })
	// An engine that the registry gives up is waited for no longer.
	r.stop()
	f := engineIn(5, 0)
	w.record(f, 1, fleet.OK)
	r = w.bootIndex(Config{Shards: fleet.Buckets, Shard: 5})
	w.eventually("the bucket is not answered for", func() bool { return r.health.Ready() != nil && strings.Contains(r.health.Ready().Error(), "snapshots") })
	w.record(f, 1, fleet.Gone)
	w.eventually("ready without it", func() bool { return r.health.Ready() == nil })
}
