package ingest

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/prefix"
)

// churn is an engine that stores and removes blocks at random.
type churn struct {
	r    *rand.Rand
	held []uint64
	next uint64
	ts   float64
	seq  uint64
}

func (c *churn) events(n, capacity int) []kvevent.Event {
	var events []kvevent.Event
	for range n {
		if len(c.held) >= capacity || len(c.held) > 0 && c.r.IntN(3) == 0 {
			i := c.r.IntN(len(c.held))
			events = append(events, removed(c.held[i]))
			c.held[i] = c.held[len(c.held)-1]
			c.held = c.held[:len(c.held)-1]
			continue
		}
		c.next++
		ev := kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{c.next}, BlockSize: 16, Medium: "GPU", Tokens: make([]uint32, 16)}
		ev.Tokens[0] = uint32(c.next)
		if len(c.held) > 0 && c.r.IntN(2) == 0 {
			ev.Parent, ev.HasParent = c.held[c.r.IntN(len(c.held))], true
		}
		events, c.held = append(events, ev), append(c.held, c.next)
	}
	return events
}

// Whatever is folded, taken, begun anew and left waiting: what waits is bounded by the cache, messages by their limit,
// and a reader that has everything holds what the cache holds.
func TestCachePublishesExactlyWhatItHolds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(14) {
		c := newCache("e", prefix.EngineOptions{Pool: "p", BlockSize: 16}, func() {})
		c.adopt(nil)
		b := newBucket(bus.EventSubject("p", 1), "me", nil, time.Second, quiet(), newMetrics(nil))
		b.add(c)
		log := &logReader{canonical: 16, engines: map[string]*readEngine{}, buckets: map[string]*readBucket{b.name: {owner: "me"}}, kinds: map[string]int{}}
		stream := uint64(0)
		publish := func() bool {
			parts, receipts := b.next()
			if len(parts) == 0 {
				return false
			}
			data, err := b.encode(parts)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) > maxMessage {
				t.Fatalf("seed %d: a message of %d bytes", seed, len(data))
			}
			stream++
			log.message(bus.Message{Subject: b.name, Seq: stream, Data: data})
			for _, r := range receipts {
				r.acknowledged(eventlog.Place{Sequence: stream})
			}
			return true
		}
		engine := &churn{r: rand.New(rand.NewPCG(seed, 2))}
		c.reset("test")
		capacity := []int{10, 100, 1000, 8_000}[[]int{0, 1, 2, 0, 1, 2, 3}[seed%7]]
		for range 60 {
			switch k := engine.r.IntN(20); {
			case k == 0:
				c.renew("test")
			case k == 1:
				c.reset("test")
				engine.held = nil
			case k == 2:
				c.again()
			case k == 3:
				c.wish()
			case k == 4:
				c.tell()
			case k < 8:
				publish()
			default:
				batch := engine.events(1+engine.r.IntN(capacity/2), capacity)
				before := c.unpublished()
				c.apply(stamp{engine.seq, engine.ts}, time.Unix(1, 0), batch)
				engine.seq++
				engine.ts++
				if n := c.size; n > max(maxMessage, c.snapshotSize()) {
					t.Fatalf("seed %d: %d bytes of deltas wait (%d before), a snapshot takes %d", seed, n, before, c.snapshotSize())
				}
			}
		}
		for publish() {
		}
		got, _, _ := log.copies("e")
		want := held(engine.held...)
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: the log says %d blocks, held are %d", seed, len(got), len(want))
		}
		if stats, _ := c.known(); log.engines["e"].fold.Stats().Digest != stats.Digest {
			t.Fatalf("seed %d: digests differ", seed)
		}
		for _, breach := range log.breaches {
			t.Errorf("seed %d: %s", seed, breach)
		}
	}
}

// A batch that fits no message is cut, and its parts say how much of it they hold.
func TestCutBatchSaysHowMuch(t *testing.T) {
	c := newCache("e", prefix.EngineOptions{Pool: "p", BlockSize: 16, Blocks: 1 << 16}, func() {})
	c.generation = 1
	engine := &churn{r: rand.New(rand.NewPCG(1, 1))}
	var all []kvevent.Event
	for range 2500 {
		all = append(all, engine.events(1, 1<<20)...)
	}
	c.apply(stamp{7, 70}, time.Unix(1, 0), all)
	c.apply(stamp{8, 80}, time.Unix(1, 0), engine.events(1, 1<<20))
	c.tell()
	var done []uint32
	for {
		parts, _, _ := c.take(16<<10, true)
		if len(parts) == 0 {
			break
		}
		if rest := parts[1:]; len(rest) > 1 || (len(rest) == 1) != (len(c.deltas) == 0) || len(rest) == 1 && rest[0].GetDigest() == nil {
			t.Fatalf("%d batches wait, beside the delta go %v", len(c.deltas), rest)
		}
		d := parts[0].GetDelta()
		if n := len(done); n > 1 && done[n-1] == 0 { // what ends a cut batch holds no other
			if d.Batch.Sequence != 8 || d.Batch.Operations != 0 {
				t.Fatalf("after the last part of batch 7 comes %v", d.Batch)
			}
			continue
		}
		if d.Batch.Sequence != 7 || d.Batch.Ts != 70 || proto.Size(parts[0]) > 16<<10 {
			t.Fatalf("part of batch %v, %d bytes", d.Batch, proto.Size(parts[0]))
		}
		done = append(done, d.Batch.Operations)
	}
	if len(done) < 3 || done[len(done)-1] != 0 {
		t.Fatalf("operations %v", done)
	}
	for i := 1; i < len(done)-1; i++ {
		if done[i] <= done[i-1] {
			t.Errorf("operations %v do not grow", done)
		}
	}
}

// Who starts to read where a snapshot of several parts begins has all of it.
func TestASnapshotBeginsAtItsFirstPart(t *testing.T) {
	c := newCache("e", prefix.EngineOptions{Pool: "p", BlockSize: 16, Blocks: 1 << 16}, func() {})
	c.adopt(nil)
	c.generation = 1
	engine := &churn{r: rand.New(rand.NewPCG(1, 1))}
	c.apply(stamp{7, 70}, time.Unix(1, 0), engine.events(30_000, 1<<20))
	c.again()
	b := newBucket(bus.EventSubject("p", 1), "me", nil, time.Second, quiet(), newMetrics(nil))
	b.add(c)
	n := uint64(0)
	for parts, receipts := b.next(); len(parts) > 0; parts, receipts = b.next() {
		n++
		for _, r := range receipts {
			r.acknowledged(eventlog.Place{Sequence: 100 + n})
		}
		if got := c.begins().Sequence; got != 0 && (got != 101 || n != uint64(parts[0].GetSnapshot().Parts)) {
			t.Errorf("after message %d the engine begins at %d", n, got)
		}
	}
	if n < 2 || c.begins().Sequence != 101 {
		t.Errorf("%d messages, the engine begins at %d", n, c.begins().Sequence)
	}
}
