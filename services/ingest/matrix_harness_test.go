package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// The fault matrix: for every fault that engines, networks and NATS can have, a test with real sockets that says what
// holds afterwards. docs/invariants.md lists them.

// matrix is a plane on which faults happen.
type matrix struct {
	*plane
	depth  *depthReader
	states *written // what ingest has logged
	seed   blockkey.Seed
}

func newMatrix(t testing.TB) *matrix {
	t.Helper()
	m := &matrix{plane: newPlane(t), states: &written{}}
	m.logger = slog.New(slog.NewTextHandler(m.states, nil))
	m.depth = readDepths(t, m.conn)
	return m
}

// depthReader folds the log into an index for each pool.
type depthReader struct {
	ends func() // stops to read

	mu    sync.Mutex
	pools map[string]*prefix.Index
	parts map[string][]*eventsv1.Snapshot // of snapshots on their way, by subject and engine
}

func readDepths(t testing.TB, conn *bus.Conn) *depthReader {
	r := &depthReader{pools: map[string]*prefix.Index{}, parts: map[string][]*eventsv1.Snapshot{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := conn.Follow(ctx, bus.Events, nil, 1, r.message); err != nil {
			t.Errorf("Follow: %v", err)
		}
	}()
	r.ends = func() { cancel(); <-done }
	t.Cleanup(r.ends)
	return r
}

func (r *depthReader) message(m bus.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var msg eventsv1.Message
	pool, _, ok := bus.ParseEventSubject(m.Subject)
	if err := proto.Unmarshal(m.Data, &msg); err != nil || !ok {
		return
	}
	x := r.pools[pool]
	if x == nil {
		x = prefix.NewIndex()
		r.pools[pool] = x
	}
	for _, p := range msg.Parts {
		at := m.Subject + " " + p.Engine
		switch body := p.Body.(type) {
		case *eventsv1.Part_Reset_:
			x.Reset(p.Engine, m.Seq)
		case *eventsv1.Part_Delta:
			eachRun(body.Delta.Runs, func(run *prefix.Run) bool { x.Apply(p.Engine, run); return true })
		case *eventsv1.Part_Snapshot:
			if body.Snapshot.Part == 1 {
				r.parts[at] = nil
			}
			if r.parts[at] = append(r.parts[at], body.Snapshot); body.Snapshot.Part == body.Snapshot.Parts {
				x.Replace(p.Engine, body.Snapshot.Generation, func(yield func(*prefix.Run) bool) {
					for _, part := range r.parts[at] {
						eachRun(part.Runs, yield)
					}
				})
				r.parts[at] = nil
			}
		}
	}
}

func eachRun(logged []*eventsv1.Run, yield func(*prefix.Run) bool) {
	for _, l := range logged {
		if run, err := eventlog.Run(l); err == nil && !yield(&run) {
			return
		}
	}
}

// depths is how many leading blocks of a prompt the log says that an engine holds, in gpu memory and anywhere; -1 where
// it says nothing of the engine.
func (m *matrix) depths(e *engine, prompt []uint64) [2]int {
	m.t.Helper()
	if m.seed == (blockkey.Seed{}) {
		var err error
		if m.seed, err = fleet.Seed(m.t.Context(), m.conn); err != nil {
			m.t.Fatal(err)
		}
	}
	var tokens []uint32
	for _, h := range prompt {
		for range e.blockSize {
			tokens = append(tokens, uint32(h))
		}
	}
	pool := fleet.PoolID(e.model)
	keys := blockkey.Keys(nil, blockkey.Scope{Seed: m.seed, Pool: pool, BlockSize: 16}, tokens, nil)
	m.depth.mu.Lock()
	defer m.depth.mu.Unlock()
	if x := m.depth.pools[pool]; x != nil {
		for _, d := range x.Match(keys, nil) {
			if d.Engine == e.id {
				return [2]int{d.GPU, d.Any}
			}
		}
	}
	return [2]int{-1, -1}
}

// neverPartial checks that no engine has been called partial, not even for a moment.
func (m *matrix) neverPartial() {
	m.t.Helper()
	if n := m.states.count("state=partial"); n > 0 {
		m.t.Errorf("an engine was partial %d times", n)
	}
}

// lives is how many lives engines have had.
func (m *matrix) lives() float64 { return m.count("resets_total") }

// exact waits until the log says of an engine what is true: every copy, and how deep it holds each of its prompts.
func (m *matrix) exact(b *blockPool) (generation uint64) {
	m.t.Helper()
	generation = m.holds(b.e, b.copies())
	for _, leaf := range b.leaves[max(0, len(b.leaves)-500):] {
		prompt := b.chain(leaf)
		gpu, anywhere := b.depth(prompt)
		var got [2]int
		eventually(m.t, fmt.Sprintf("depths %d and %d of a prompt of %d blocks", gpu, anywhere, len(prompt)), func() bool {
			got = m.depths(b.e, prompt)
			return got == [2]int{gpu, anywhere}
		})
	}
	return generation
}

// exactAndOK is exact, and the engine's record says so.
func (m *matrix) exactAndOK(b *blockPool) (generation uint64) {
	m.t.Helper()
	for logged := uint64(0); logged != generation || logged == 0; {
		logged = m.exact(b)
		generation = m.record(b.e, "ok", func(r fleet.Engine) bool {
			_, g, ok := m.log.copies(b.e.id)
			return ok && r.State == fleet.OK && r.Generation == g
		}).Generation
	}
	return generation
}

// caughtUp waits until the log holds all that the engine has published, by a prompt of one block that it publishes last.
func (m *matrix) caughtUp(b *blockPool) {
	m.t.Helper()
	mark := b.single()
	b.e.publish(b.run(mark)...)
	eventually(m.t, "the last batch is in the log", func() bool {
		c, _, ok := m.log.copies(b.e.id)
		return ok && c[copyKey(mark[0], 0)] > 0 && m.depths(b.e, mark) == [2]int{1, 1}
	})
}

// neverOver checks, once all is in the log, that it claims nothing that the engine does not hold.
func (m *matrix) neverOver(b *blockPool) {
	m.t.Helper()
	m.caughtUp(b)
	got, _, _ := m.log.copies(b.e.id)
	for c, n := range got {
		if want := b.copies()[c]; n > want {
			m.t.Fatalf("the log says %d copies of a block, held are %d", n, want)
		}
	}
	for _, leaf := range b.leaves {
		prompt := b.chain(leaf)
		gpu, anywhere := b.depth(prompt)
		if got := m.depths(b.e, prompt); got[0] > gpu || got[1] > anywhere {
			m.t.Fatalf("the log says depths %v, held are %d and %d", got, gpu, anywhere)
		}
	}
}

// wrongly counts the blocks that the log says are held and are not, and those that are held and it does not say.
func (m *matrix) wrongly(b *blockPool) (claimed, unknown int) {
	got, _, _ := m.log.copies(b.e.id)
	want := b.copies()
	for c, n := range got {
		claimed += max(0, n-want[c])
	}
	for c, n := range want {
		unknown += max(0, n-got[c])
	}
	return claimed, unknown
}
