package index

import (
	"fmt"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// asked counts what is asked about a bucket of the test's pool.
func (w *world) asked(bucket int) <-chan string {
	w.Helper()
	asks := make(chan string, 100)
	stop, err := w.conn.Listen(bus.AskSubject(testPool, bucket), func(subject string, _ []byte) { asks <- subject })
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(stop)
	return asks
}

func (w *world) wait(asks <-chan string) {
	w.Helper()
	select {
	case <-asks:
	case <-time.After(patience):
		w.Fatal("nobody asks")
	}
}

// The stream has discarded the beginning of an engine's log: what is left says nothing, so the engine stays unknown,
// until its owner, who is asked, tells its state.
func TestLogThatBeginsInTheMiddleLeavesEnginesUnknown(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, bus.Sizes{Events: 1 << 20})
	asks := w.asked(3)
	o, e, f := w.owner("a", 3), engineIn(3, 0), engineIn(3, 1)
	o.claim()
	born := o.write(resetOf(e), show(e, 1, 2, 3))
	// A large snapshot loses its first part only.
	var filler []uint64
	for i := range uint64(30_000) {
		filler = append(filler, 1000+i)
	}
	snapshot := func(part uint32) uint64 { return o.write(snapshotOf(f, born, part, 5, filler...)) }
	for part := range uint32(5) {
		snapshot(part + 1)
	}
	last := o.write(hide(e, 3), show(f, 1))
	stream, err := w.conn.StreamState(t.Context(), bus.Events)
	if err != nil || stream.First <= born+1 {
		t.Fatalf("the stream begins at %d, the engine's life at %d: %v", stream.First, born, err)
	}
	r := w.startIndex(Config{})
	r.expect(last, map[string]string{}, 1, 2, 3)
	seq := o.write(show(e, 4), show(f, 2))
	r.expect(seq, map[string]string{}, 1, 2, 3, 4)
	if n := r.count("skipped_parts_total"); n < 2 {
		t.Errorf("%v parts skipped", n)
	}
	for _, id := range []string{e, f} {
		if err := fleet.PutEngine(t.Context(), w.conn, fleet.Engine{ID: id, Pool: testPool, Generation: born, State: fleet.OK}); err != nil {
			t.Fatal(err)
		}
	}
	w.wait(asks)
	seq = o.write(snapshotOf(e, born, 1, 1, 1, 2, 4), resetOf(f), show(f, 1))
	r.expect(seq, map[string]string{e: "2/2", f: "1/1"}, 1, 2, 3)
}

// An engine whose log holds something unreadable keeps its state, and its owner is asked until it tells it anew.
func TestUnreadableMessageIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	o, e := w.owner("a", 3), engineIn(3, 0)
	asks := w.asked(3)
	o.claim()
	seq := o.write(resetOf(e), show(e, 1, 2))
	if err := fleet.PutEngine(t.Context(), w.conn, fleet.Engine{ID: e, Pool: testPool, Generation: seq, State: fleet.OK}); err != nil {
		t.Fatal(err)
	}
	r.expect(seq, map[string]string{e: "2/2"}, 1, 2)
	bad := o.write(&eventsv1.Part{Engine: e, Body: &eventsv1.Part_Delta{Delta: &eventsv1.Delta{Runs: []*eventsv1.Run{{Copy: 77}}}}})
	r.expect(bad, map[string]string{e: "2/2"}, 1, 2)
	w.wait(asks)
	seq = o.write(snapshotOf(e, seq, 1, 1, 1))
	r.expect(seq, map[string]string{e: "1/1"}, 1, 2)
}

func TestAskForMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := engineIn(3, 0)
	asks := w.asked(3)
	for id, state := range map[string]fleet.State{e: fleet.OK, engineIn(4, 0): fleet.Gone} {
		if err := fleet.PutEngine(t.Context(), w.conn, fleet.Engine{ID: id, Pool: testPool, Generation: 7, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	wr := newTestWriter(w)
	start := time.Unix(1000, 0)
	wr.askForMissing(start)
	if len(wr.wanting) != 0 {
		t.Error("asked before the log was read")
	}
	wr.live = true
	var at []int
	for s := range 200 {
		before := wr.wanting[bucketID{testPool, 3}].at
		wr.askForMissing(start.Add(time.Duration(s) * time.Second))
		if s > 0 && wr.wanting[bucketID{testPool, 3}].at != before {
			at = append(at, s)
		}
	}
	if got := fmt.Sprint(at); got != "[1 4 10 22 46 94 154]" {
		t.Errorf("asked after %s seconds", got)
	}
	for range at {
		w.wait(asks)
	}
	if len(wr.wanting) != 1 {
		t.Errorf("wanting %v", wr.wanting)
	}
	b := newBucket()
	b.engines[e] = &engine{generation: 7}
	wr.buckets[bucketID{testPool, 3}] = b
	wr.askForMissing(start)
	if len(wr.wanting) != 0 {
		t.Errorf("still wanting %v", wr.wanting)
	}
	b.doubt()
	wr.askForMissing(start)
	if len(wr.wanting) != 1 {
		t.Error("a state in doubt is not asked for")
	}
}
