package ingest

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
	indexv1 "github.com/warmpath/warmpath/proto/warmpath/index/v1"
	"github.com/warmpath/warmpath/services/index"
)

// Tests across both ends of the log: what engines publish, and what an index answers.

// index runs a replica of the index.
func (p *plane) index() indexv1.IndexClient {
	p.t.Helper()
	x, _ := p.indexWith()
	return x
}

// indexWith is index, with its metrics.
func (p *plane) indexWith() (indexv1.IndexClient, *prometheus.Registry) {
	p.t.Helper()
	registry := prometheus.NewRegistry()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan error, 1)
	health := &daemon.Health{}
	go func() {
		ended <- index.Run(ctx, index.Config{NATS: p.server.URL(), Listener: l, Log: quiet(), Health: health, Metrics: registry})
	}()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("index: %v", err)
		}
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	eventually(p.t, "index ready", func() bool { return health.Ready() == nil })
	return indexv1.NewIndexClient(conn), registry
}

// depth is how many blocks of a chain, published with stored, the index says that an engine holds; -1 where it is
// unknown.
func (p *plane) depth(x indexv1.IndexClient, e *engine, chain ...uint64) int {
	p.t.Helper()
	seed, err := fleet.Seed(p.t.Context(), p.conn)
	if err != nil {
		return -2 // NATS is away
	}
	var tokens []uint32
	for _, h := range chain {
		for range e.blockSize {
			tokens = append(tokens, uint32(h))
		}
	}
	pool := fleet.PoolID(e.model)
	keys := blockkey.Keys(nil, blockkey.Scope{Seed: seed, Pool: pool, BlockSize: p.log.canonical}, tokens, nil)
	res, err := x.Match(p.t.Context(), &indexv1.MatchRequest{Pool: pool, Keys: keys})
	if err != nil {
		return -2
	}
	for _, m := range res.Engines {
		if m.Engine == e.id {
			return int(m.Gpu)
		}
	}
	return -1
}

func (p *plane) indexHolds(x indexv1.IndexClient, e *engine, depth int, chain ...uint64) {
	p.t.Helper()
	got := 0
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the index says %d blocks, want %d", got, depth)
		}
	}()
	eventually(p.t, fmt.Sprintf("the index knows %s", e.id), func() bool { got = p.depth(x, e, chain...); return got == depth })
}

// An engine that was gone, and never lost its cache, is known again as soon as it is back.
func TestEngineThatComesBackIsKnownToTheIndex(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	x := p.index()
	want := []uint64{1}
	e.publish(e.stored(0, 1))
	for next := range uint64(3) {
		e.publish(e.stored(want[len(want)-1], next+2))
		want = append(want, next+2)
		p.indexHolds(x, e, len(want), want...)
		e.down.Store(true)
		p.indexHolds(x, e, -1, want...)
		e.down.Store(false)
		p.indexHolds(x, e, len(want), want...)
	}
}

// NATS comes back empty: no stream, no records, no seed. Everything is there again although no engine says a word.
func TestNATSThatLostItsStoreIsFilledAgain(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{BufferSteps: 1}) // the engine itself could not tell it again
	p.ingest("a", e)
	x := p.index()
	p.holds(e, held())
	e.publish(e.stored(0, 1, 2))
	p.holds(e, held(1, 2))
	e.publish(e.stored(2, 3))
	p.indexHolds(x, e, 3, 1, 2, 3)
	before := p.record(e, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK })
	seed, err := fleet.Seed(t.Context(), p.conn)
	if err != nil {
		t.Fatal(err)
	}
	p.log.ends() // the old stream
	p.server.Stop()
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	p.startNATS()
	eventually(t, "the seed is the same", func() bool {
		kv, err := p.conn.KV(t.Context(), bus.Config)
		if err != nil {
			return false
		}
		entry, err := kv.Get(t.Context(), "hash-seed")
		return err == nil && [32]byte(entry.Value) == seed
	})
	p.indexHolds(x, e, 3, 1, 2, 3)
	after := p.record(e, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK })
	if fmt.Sprint(before.Models) != fmt.Sprint(after.Models) {
		t.Errorf("models %v, were %v", after.Models, before.Models)
	}
	w, err := fleet.Watch(t.Context(), p.conn, quiet())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pool's record", func() bool { return w.View().Pools[after.Pool].BlockSize == 16 })
	e.publish(e.stored(3, 4))
	p.indexHolds(x, e, 4, 1, 2, 3, 4)
	p.toldFrom(map[*engine]copies{e: held(1, 2, 3, 4)})
}

// An engine that died while no ingest ran is gone, though nobody can say what it was; and it may come back.
func TestEngineThatDiedUnseenIsGone(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e, other := newEngine(t, 16, kvwire.PublisherOptions{}), newEngine(t, 16, kvwire.PublisherOptions{})
	stop := p.ingest("a", e, other)
	x := p.index()
	e.publish(e.stored(0, 1))
	p.indexHolds(x, e, 1, 1)
	p.record(e, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK })
	stop()
	e.down.Store(true)
	p.ingest("b", e, other)
	p.record(e, "gone", func(r fleet.Engine) bool { return r.State == fleet.Gone && r.Why != "" && len(r.Models) == 2 })
	p.indexHolds(x, e, -1, 1)
	e.down.Store(false)
	p.record(e, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK })
	p.indexHolds(x, e, 1, 1)
}

// A reader that asks gets snapshots, in the same generation.
func TestReaderWhoLacksAnEngineIsAnswered(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	e := newEngine(t, 16, kvwire.PublisherOptions{})
	p.ingest("a", e)
	e.publish(e.stored(0, 1, 2))
	first := p.holds(e, held(1, 2))
	for _, subject := range []string{"ask.nobody.00", "ask.x", "ask." + fleet.PoolID(model) + ".99"} {
		if err := p.conn.Send(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a snapshot", func() bool {
		_ = p.conn.Send(bus.AskSubject(fleet.PoolID(model), fleet.Bucket(e.id)), nil)
		return p.log.seen("snapshot") > 1
	})
	e.publish(e.stored(2, 3))
	if g := p.holds(e, held(1, 2, 3)); g != first {
		t.Errorf("generation %d after %d", g, first)
	}
}
