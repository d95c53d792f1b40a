package ingest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
	"github.com/warmpath/warmpath/libs/prefix"
)

// position is what is recorded for an engine's bucket.
func (p *plane) position(e *engine) uint64 {
	p.t.Helper()
	at, err := fleet.Position(p.t.Context(), p.conn, fleet.BucketID{Pool: fleet.PoolID(e.model), N: fleet.Bucket(e.id)})
	if err != nil {
		p.t.Fatal(err)
	}
	return at
}

// foldFrom is what somebody knows who reads an engine's bucket from a sequence on.
func (p *plane) foldFrom(e *engine, from uint64) map[string]*eventlog.Engine {
	p.t.Helper()
	fold := eventlog.Fold{New: func(string) *prefix.Engine { return prefix.NewEngine(p.options(e)) }}
	subjects := []string{bus.EventSubject(fleet.PoolID(e.model), fleet.Bucket(e.id))}
	if n, err := p.conn.Pending(p.t.Context(), bus.Events, subjects, from); err != nil || n == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	done := false
	err := p.conn.Follow(ctx, bus.Events, subjects, from, func(m bus.Message) {
		if done {
			return
		}
		if err := fold.Message(m.Seq, m.Time, m.Data); err != nil {
			p.t.Errorf("message %d: %v", m.Seq, err)
		}
		if done = m.Pending == 0; done {
			cancel()
		}
	})
	if err != nil || !done {
		p.t.Fatalf("read from %d: %v", from, err)
	}
	if fold.Unequal > 0 {
		p.t.Errorf("read from %d: %d states are not what their owner published", from, fold.Unequal)
	}
	return fold.Engines()
}

// toldFrom waits until a reader who starts at the recorded position, or where the stream begins, knows these engines
// exactly.
func (p *plane) toldFrom(truth map[*engine]copies) {
	p.t.Helper()
	for e, want := range truth {
		eventually(p.t, fmt.Sprintf("%s is told of from the position on", e.id), func() bool {
			stream, err := p.conn.StreamState(p.t.Context(), bus.Events)
			if err != nil {
				p.t.Fatal(err)
			}
			got := p.foldFrom(e, max(p.position(e), stream.First))[e.id]
			return got != nil && !got.Behind && maps.Equal(copiesOf(got.Cache), want)
		})
	}
}

func copiesOf(e *prefix.Engine) copies {
	c := copies{}
	e.Copies(func(_ prefix.Tier, group int, hash uint64, n int) bool {
		c[copyKey(hash, group)] += n
		return true
	})
	return c
}

// neighbours are engines in one bucket.
func neighbours(t *testing.T, n int) (all []*engine) {
	for range n {
		e := newEngine(t, 16, kvwire.PublisherOptions{})
		for len(all) > 0 && fleet.Bucket(e.id) != fleet.Bucket(all[0].id) {
			e.config.Rank++
			e.id = e.config.ranks()[0].id
		}
		all = append(all, e)
	}
	return all
}

// A bucket's position moves as its log grows, though one of its engines is idle; from every position on all is told.
func TestPositionsMoveAndSuffice(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	all := neighbours(t, 2)
	busy, idle := all[0], all[1]
	stop := p.ingest("a", all...)
	idle.publish(idle.stored(0, 1, 2, 3))
	p.holds(idle, held(1, 2, 3))
	churn := &churn{r: rand.New(rand.NewPCG(7, 7))}
	publish := func() {
		busy.publish(churn.events(2000, 3000)...)
		p.holds(busy, held(churn.held...))
	}
	publish()
	eventually(t, "a position", func() bool { return p.position(busy) > 1 })
	for range 3 {
		before := p.position(busy)
		for end := time.Now().Add(20 * time.Second); p.position(busy) == before && time.Now().Before(end); {
			publish()
		}
		if p.position(busy) <= before {
			t.Fatalf("the position stays at %d", before)
		}
		p.toldFrom(map[*engine]copies{busy: held(churn.held...), idle: held(1, 2, 3)})
	}
	stop()
	p.ingest("b", all...) // reads from there itself
	publish()
	p.toldFrom(map[*engine]copies{busy: held(churn.held...), idle: held(1, 2, 3)})
	if p.log.seen("reset") != 2 {
		t.Errorf("%d resets", p.log.seen("reset"))
	}
}

// What a stream discards has been said again before.
func TestSnapshotsComeBeforeTheStreamForgets(t *testing.T) {
	t.Parallel()
	p := newPlaneWith(t, 16, bus.Sizes{Events: 2 << 20})
	p.log.ends() // it would miss what is discarded
	idle, busy := newEngine(t, 16, kvwire.PublisherOptions{}), newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", idle, busy)
	idle.publish(idle.stored(0, 1, 2, 3, 4))
	truth := map[*engine]copies{idle: held(1, 2, 3, 4)}
	p.toldFrom(truth)
	churn := &churn{r: rand.New(rand.NewPCG(8, 8))}
	first := uint64(1)
	for round := 0; round < 400 && first < 60; round++ {
		busy.publish(churn.events(1000, 2000)...)
		eventually(t, "the batch to be published", func() bool {
			return p.count("batches_total") >= float64(round+2) && p.count("unpublished_bytes") == 0
		})
		stream, err := p.conn.StreamState(t.Context(), bus.Events)
		if err != nil {
			t.Fatal(err)
		}
		first = stream.First
	}
	if first < 60 {
		t.Fatalf("the stream still begins at %d", first)
	}
	truth[busy] = held(churn.held...)
	p.toldFrom(truth)
	if at := p.position(idle); at < first || p.count("resets_total") != 2 {
		t.Errorf("position %d, the stream begins at %d; %v resets", at, first, p.count("resets_total"))
	}
}

// Digests are written for engines that do nothing, and the reader of every test compares them with the log.
func TestDigestsAreWritten(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	p.holds(e, held(1, 2))
	n := p.log.seen("digest")
	eventually(t, "digests", func() bool { return p.log.seen("digest") > n+3 })
}
