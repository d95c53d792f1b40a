package index

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

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
	w.record(e, born, fleet.OK)
	w.record(f, born, fleet.OK)
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
	w.record(e, seq, fleet.OK)
	r.expect(seq, map[string]string{e: "2/2"}, 1, 2)
	bad := o.write(&eventsv1.Part{Engine: e, Body: &eventsv1.Part_Delta{Delta: &eventsv1.Delta{Runs: []*eventsv1.Run{{Copy: 77}}}}})
	r.expect(bad, map[string]string{e: "2/2"}, 1, 2)
	w.wait(asks)
	seq = o.write(snapshotOf(e, seq, 1, 1, 1))
	r.expect(seq, map[string]string{e: "1/1"}, 1, 2)
}

// Whoever is asked in vain is asked ever more rarely, also when it answers something wrong each time.
func TestAskingBacksOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := engineIn(3, 0)
	w.record(e, 7, fleet.OK)
	w.record(engineIn(4, 0), 7, fleet.Gone)
	asks := w.asked(3)
	wr, id, start := newTestWriter(w), fleet.BucketID{Pool: testPool, N: 3}, time.Unix(1000, 0)
	clock := start
	wr.now = func() time.Time { return clock }
	// asked runs seconds and says in which of them the owner was asked.
	asked := func(seconds int, each func(second int)) string {
		var at []int
		for s := range seconds {
			clock = start.Add(time.Duration(s) * time.Second)
			each(s)
			wr.repair(clock)
			for len(at) < int(counted(wr.metrics.asked)) {
				at = append(at, s)
			}
		}
		return fmt.Sprint(at)
	}
	wr.live = false
	if got := asked(5, func(int) {}); got != "[]" || len(wr.buckets) != 0 {
		t.Errorf("asked after %s seconds, before the log was read", got)
	}
	wr.live = true
	if got := asked(200, func(int) {}); got != "[1 4 10 22 46 94 154]" {
		t.Errorf("asked about a missing engine after %s seconds", got)
	}
	for range 7 {
		w.wait(asks)
	}
	if len(wr.buckets) != 1 || wr.buckets[id].starting {
		t.Errorf("%d buckets are opened", len(wr.buckets))
	}
	// Each digest says that the state is wrong, each snapshot heals it.
	wr.metrics, start = newMetrics(nil), clock.Add(time.Hour)
	wr.take(t.Context(), item{BucketID: id, seq: 7, message: &eventsv1.Message{Version: 1, Owner: "a", Counter: 1, Parts: []*eventsv1.Part{resetOf(e)}}})
	counter := uint64(1)
	say := func(p *eventsv1.Part) {
		counter++
		wr.take(t.Context(), item{BucketID: id, seq: 6 + counter, message: &eventsv1.Message{Version: 1, Owner: "a", Counter: counter, Parts: []*eventsv1.Part{p}}})
	}
	got := asked(400, func(s int) {
		switch s % 10 {
		case 1:
			say(digestOf(e, 1))
		case 3:
			say(snapshotOf(e, 7, 1, 1))
		}
	})
	if got != "[1 11 21 41 71 121 181 241 301 361]" {
		t.Errorf("asked an owner that is wrong after %s seconds", got)
	}
}

func counted(c prometheus.Counter) float64 {
	var m dto.Metric
	if c.Write(&m) != nil {
		return -1
	}
	return m.GetCounter().GetValue()
}
