package index

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

func TestStaleOwnerIsIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	old, e := w.owner("old", 3), engineIn(3, 0)
	old.claim()
	old.write(resetOf(e), show(e, 1))
	owner := w.owner("new", 3)
	owner.counter = 70
	owner.claim()
	seq := owner.write(show(e, 2))
	old.raw(old.message(show(e, 3))) // as if there were no fence
	old.raw(old.message(resetOf(e)))
	r.expect(seq+2, map[string]string{e: "2/2"}, 1, 2, 3)
	if n := r.count("fenced_messages_total"); n != 2 {
		t.Errorf("%v messages were counted as fenced, want 2", n)
	}
	seq = owner.raw(owner.message(show(e, 3)))
	r.expect(seq, map[string]string{e: "3/3"}, 1, 2, 3)
}

// A message that is missing in the stream costs the bucket what it knew, and no other bucket anything.
func TestHoleInTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e := w.owner("a", 3), engineIn(3, 0)
	other, f := w.owner("a", 4), engineIn(4, 0)
	o.claim()
	other.claim()
	other.write(resetOf(f), show(f, 1))
	w.record(e, o.write(resetOf(e), show(e, 1, 2)), fleet.OK)
	o.message(hide(e, 2)) // never written
	seq := o.write(show(e, 3))
	r.expect(seq, map[string]string{f: "1/1"}, 1, 2, 3)
	if got := r.match(seq, 1); got.Buckets != ^uint64(1<<3) {
		t.Errorf("it covers %016x", got.Buckets)
	}
	if n := r.count("holes_total"); n != 1 {
		t.Errorf("%v holes, want 1", n)
	}
	seq = o.write(snapshotOf(e, 5, 1, 1, 1, 3))
	r.expect(seq, map[string]string{e: "1/1", f: "1/1"}, 1, 2, 3)
	seq = o.write(show(e, 2))
	r.expect(seq, map[string]string{e: "3/3", f: "1/1"}, 1, 2, 3)
	if got := r.match(seq, 1); got.Buckets != 1<<64-1 {
		t.Errorf("it covers %016x after the snapshot", got.Buckets)
	}
	// A restart meets the hole as well, and ends at the same answer.
	r.stop()
	w.startIndex(Config{}).expect(seq, map[string]string{e: "3/3", f: "1/1"}, 1, 2, 3)
}

// newTestWriter is a writer that is fed by hand.
func newTestWriter(w *world) *writer {
	w.Helper()
	watcher, err := fleet.Watch(w.Context(), w.conn, quiet)
	if err != nil {
		w.Fatal(err)
	}
	wr := newWriter(w.conn, newStore(1<<64-1), watcher, newMetrics(nil), quiet)
	wr.ready = func(string) {}
	wr.live = true
	return wr
}

// A message that only the reader missed is found again in the stream.
func TestHoleInTheReading(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	o.write(resetOf(e))
	for i := range 6 {
		o.write(show(e, uint64(i+1)))
	}
	var items []item
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	err := w.conn.Follow(ctx, bus.Events, nil, 1, func(m bus.Message) {
		if items = append(items, decode(m)); len(items) == 8 {
			cancel()
		}
	})
	if err != nil || len(items) != 8 {
		t.Fatalf("read %d messages: %v", len(items), err)
	}
	wr := newTestWriter(w)
	for i, it := range items {
		if i != 4 {
			wr.take(t.Context(), it)
		}
		if i == 5 {
			if got := wr.store.pool(testPool).x.Match([]uint64{1, 2, 3, 4, 5}, nil); len(got) != 1 || got[0].GPU != 4 {
				t.Errorf("after the hole: %v, want depth 4", got)
			}
		}
	}
	if got := wr.store.pool(testPool).x.Match([]uint64{1, 2, 3, 4, 5, 6, 7}, nil); len(got) != 1 || got[0].GPU != 6 {
		t.Errorf("at the end: %v, want depth 6", got)
	}
	if got := wr.store.applied.Load(); got != 8 {
		t.Errorf("applied %d, want 8", got)
	}
}

func TestSnapshotReplaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e, f := w.owner("a", 3), engineIn(3, 0), engineIn(3, 1)
	o.claim()
	// Deltas of an engine of which nothing is known mean nothing.
	seq := o.write(show(e, 1, 2, 3))
	r.expect(seq, map[string]string{}, 1, 2, 3)

	parts := snapshotsOf(e, 9, []uint64{1, 2, 3}, []uint64{4})
	o.write(parts[0])
	seq = o.write(resetOf(f), show(f, 1)) // another engine may lie between
	r.expect(seq, map[string]string{f: "1/1"}, 1, 2, 3, 4)
	seq = o.write(parts[1])
	r.expect(seq, map[string]string{e: "4/4", f: "1/1"}, 1, 2, 3, 4)

	o.write(snapshotOf(e, 9, 1, 2, 1))
	seq = o.write(snapshotOf(e, 11, 1, 1, 1, 2)) // a newer first part
	r.expect(seq, map[string]string{e: "2/2", f: "1/1"}, 1, 2, 3, 4)
	for _, m := range r.match(seq, 1).Engines {
		if m.Engine == e && (m.Generation != 11 || m.Visible != 2) {
			t.Errorf("after the snapshot: %v", m)
		}
	}
	o.write(snapshotOf(e, 12, 1, 2, 7))
	o.write(show(e, 3)) // this engine's own message interrupts
	seq = o.write(snapshotOf(e, 12, 2, 2, 8))
	r.expect(seq, map[string]string{e: "3/3", f: "1/1"}, 1, 2, 3, 4)

	o.write(snapshotOf(e, 13, 1, 2, 7))
	o.claim() // and so does a claim
	seq = o.write(snapshotOf(e, 13, 2, 2, 8))
	r.expect(seq, map[string]string{e: "3/3", f: "1/1"}, 1, 2, 3, 4)

	o.write(snapshotOf(e, 14, 1, 3, 7))
	seq = o.write(snapshotOf(e, 14, 3, 3, 8)) // part 2 is missing
	r.expect(seq, map[string]string{e: "3/3", f: "1/1"}, 1, 2, 3, 4)
	if n := r.count("dropped_snapshots_total"); n != 6 {
		t.Errorf("%v dropped snapshots and tails, want 6", n)
	}
}

func TestBadInputIsRefusedAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	o.write(resetOf(e), show(e, 1))
	o.raw([]byte("\xff\xffnot a message"))
	o.write(show(e, 2)) // its counter follows
	future, err := proto.Marshal(&eventsv1.Message{Version: eventlog.Version + 1, Owner: "a", Counter: o.counter + 1, Parts: []*eventsv1.Part{resetOf(e)}})
	if err != nil {
		t.Fatal(err)
	}
	o.counter++
	o.raw(future)
	seq := o.write(
		show(engineIn(4, 0), 1), // not of this bucket
		deltaOf(e, &eventsv1.Run{Gpu: 99, Keys: []uint64{1}}),
		&eventsv1.Part{Engine: e},
		show(e, 3))
	r.expect(seq, map[string]string{e: "3/3"}, 1, 2, 3, 4)
	repeat := o.raw(func() []byte { o.counter--; return o.message(hide(e, 3)) }())
	r.expect(repeat, map[string]string{e: "3/3"}, 1, 2, 3, 4)
	if n := r.count("refused_total"); n != 6 {
		t.Errorf("%v refusals, want 6", n)
	}
	if n := r.count("holes_total"); n != 0 {
		t.Errorf("%v holes, want none", n)
	}
}

func TestRegistryDropsEngines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e, f := w.owner("a", 3), engineIn(3, 0), engineIn(3, 1)
	o.claim()
	seq := o.write(resetOf(e), show(e, 1), resetOf(f), show(f, 1))
	r.expect(seq, map[string]string{e: "1/1", f: "1/1"}, 1)
	record := fleet.Engine{ID: e, Pool: testPool, Generation: seq, State: fleet.OK}
	put := func(s fleet.State, generation uint64) {
		t.Helper()
		record.State, record.Generation = s, generation
		if err := fleet.PutEngine(t.Context(), w.conn, record); err != nil {
			t.Fatal(err)
		}
	}
	answers := func(engines int) func() bool {
		return func() bool { return len(r.match(seq, 1).Engines) == engines }
	}
	put(fleet.OK, seq)
	put(fleet.Gone, seq)
	w.eventually("e is gone", answers(1))

	// What its log still says of that life is dead too; a new life is not.
	late := o.write(snapshotOf(e, seq, 1, 1, 1, 2), show(e, 3))
	r.expect(late, map[string]string{f: "1/1"}, 1, 2)
	life := o.write(resetOf(e), show(e, 1))
	r.expect(life, map[string]string{e: "1/1", f: "1/1"}, 1, 2)

	// A restart reads the log of engines that are long gone.
	put(fleet.Gone, life)
	r.stop()
	r = w.startIndex(Config{})
	w.eventually("e is not there again", answers(1))
}

func TestLapsed(t *testing.T) {
	t.Parallel()
	wr := newTestWriter(newWorld(t))
	known := func(s fleet.State, generation uint64) *fleet.View {
		return &fleet.View{Engines: map[string]fleet.Engine{"e": {ID: "e", State: s, Generation: generation}}}
	}
	unknown := &fleet.View{}
	type step struct {
		view   *fleet.View
		second int64
		want   bool
	}
	for name, steps := range map[string][]step{
		"gone":                            {{known(fleet.OK, 5), 0, false}, {known(fleet.Gone, 5), 1, true}},
		"gone, of no known life":          {{known(fleet.Gone, 0), 0, true}},
		"gone, of a later life":           {{known(fleet.Gone, 6), 0, true}},
		"gone was an earlier life":        {{known(fleet.Gone, 4), 0, false}},
		"deleted":                         {{known(fleet.OK, 5), 0, false}, {unknown, 1, true}},
		"deleted was an earlier life":     {{known(fleet.OK, 4), 0, false}, {unknown, 1, false}, {unknown, 31, false}, {unknown, 32, true}},
		"never recorded":                  {{unknown, 0, false}, {unknown, 30, false}, {unknown, 31, true}},
		"recorded late":                   {{unknown, 0, false}, {unknown, 30, false}, {known(fleet.OK, 5), 31, false}, {known(fleet.OK, 5), 99, false}},
		"deleted and recorded once again": {{known(fleet.OK, 4), 0, false}, {unknown, 1, false}, {known(fleet.OK, 5), 31, false}, {known(fleet.Silent, 5), 99, false}},
	} {
		e := &engine{generation: 5}
		for i, s := range steps {
			if got := wr.lapsed(s.view, "e", e, time.Unix(s.second, 0)); got != s.want {
				t.Errorf("%s, step %d: dropped %v, want %v", name, i, got, s.want)
			}
		}
	}
	if wr.isDead("e", 6) || !wr.isDead("e", 5) {
		t.Error("the deleted life 5 and no other is dead")
	}
}

func TestAdmit(t *testing.T) {
	claim := []*eventsv1.Part{{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}}}
	b := newBucket()
	for i, c := range []struct {
		owner   string
		counter uint64
		parts   []*eventsv1.Part
		want    verdict
	}{
		{"a", 7, nil, accepted}, // the first one is believed
		{"a", 8, nil, accepted},
		{"a", 8, nil, repeated},
		{"a", 10, nil, hole},
		{"a", 9, nil, accepted},
		{"b", 1, nil, fenced},
		{"b", 1, claim, accepted},
		{"a", 10, nil, fenced},
		{"b", 2, nil, accepted},
		{"b", 1, nil, hole},
		{"b", 1, claim, accepted}, // its claim was sent twice
		{"b", 2, nil, accepted},
	} {
		if got := b.admit(&eventsv1.Message{Owner: c.owner, Counter: c.counter, Parts: c.parts}); got != c.want {
			t.Errorf("message %d is %d, want %d", i, got, c.want)
		}
	}
}

// Snapshots that never end cannot fill the memory, nor can endless pools.
func TestHostileStreamIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wr := newTestWriter(w)
	huge := runOf(shown, shown, make([]uint64, 1<<20)...) // 8 MiB, shared by all
	for i := range 60 {
		p := snapshotOf(engineIn(3, i), 1, 1, 2)
		p.GetSnapshot().Runs = []*eventsv1.Run{huge}
		m := &eventsv1.Message{Version: 1, Owner: "a", Counter: uint64(i), Parts: []*eventsv1.Part{p}}
		wr.take(t.Context(), item{BucketID: fleet.BucketID{Pool: testPool, N: 3}, seq: uint64(i + 1), message: m})
	}
	if held, n := wr.held, len(wr.buckets[fleet.BucketID{Pool: testPool, N: 3}].snapshots); held > maxSnapshots || n > maxSnapshots>>23 || n < 10 {
		t.Errorf("%d incomplete snapshots of %d bytes are kept", n, held)
	}
	wr.lose(fleet.BucketID{Pool: testPool, N: 3})
	if wr.held != 0 {
		t.Errorf("%d bytes are held by nothing", wr.held)
	}
	for i := range maxPools + 10 {
		e := engineIn(3, 0)
		m := &eventsv1.Message{Version: 1, Owner: "a", Counter: 1, Parts: []*eventsv1.Part{resetOf(e)}}
		wr.take(t.Context(), item{BucketID: fleet.BucketID{Pool: fmt.Sprint("pool", i), N: 3}, seq: uint64(100 + i), message: m})
	}
	if n := len(*wr.store.pools.Load()); n != maxPools {
		t.Errorf("%d pools are kept, want %d", n, maxPools)
	}
}
