package ingest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// A block stored twice is held until it is removed twice.
func TestBlockStoredTwiceIsHeldUntilItIsRemovedTwice(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 100, 1, kvwire.PublisherOptions{})
	m.ingest("a", b.e)
	prompt := b.grow(6)
	for range 3 {
		b.e.publish(b.compute(prompt, 0)...) // as two equal prompts at once do
		m.exact(b)
	}
	for range 3 {
		for _, h := range slices.Backward(prompt) {
			b.e.publish(b.drop(h))
		}
		m.exact(b)
	}
	b.e.publish(b.compute(prompt, 0)...)
	b.e.publish(b.compute(prompt, 0)...)
	for len(b.gpu) > 0 { // in any order
		b.e.publish(b.evict(b.r.IntN(len(b.gpu))))
	}
	m.exactAndOK(b)
	m.neverPartial()
}

// In full report mode an engine announces blocks that it has had all along: more than it has room for is partial, until
// its next clear.
func TestFullReportModeIsPartial(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 40, 2, kvwire.PublisherOptions{})
	m.ingest("a", b.e)
	b.publish(30)
	first := m.exactAndOK(b)
	prompt := b.chain(b.leaves[len(b.leaves)-1])
	for range 1 + b.capacity/len(prompt) {
		b.e.publish(b.e.stored(0, prompt...)) // reused, not stored
	}
	m.record(b.e, "partial", func(r fleet.Engine) bool {
		return r.State == fleet.Partial && strings.Contains(r.Why, "more copies") && r.Generation == first
	})
	b.e.publish(append([]kvevent.Event{b.clear()}, b.step()...)...)
	b.publish(20)
	m.exactAndOK(b)
}

// hashAs is an engine hash in one of the forms in which vLLM and its connectors send it.
func hashAs(form int, h uint64) any {
	switch form {
	case 0:
		return h
	case 1:
		return int64(h)
	case 2:
		return binary.BigEndian.AppendUint64(make([]byte, 8), h) // xxhash digests are 16 bytes long
	}
	return binary.BigEndian.AppendUint64(slices.Repeat([]byte{0xab}, 24), h)
}

// publishMixed sends events as v0.23 does, each hash in a form of its own.
func (b *blockPool) publishMixed(events []kvevent.Event) {
	hashes := func(ev *kvevent.Event) (all []any) {
		for _, h := range ev.Hashes {
			all = append(all, hashAs(b.r.IntN(4), h))
		}
		return all
	}
	var list []any
	for i := range events {
		switch ev := &events[i]; ev.Kind {
		case kvevent.Stored:
			var parent any
			if ev.HasParent {
				parent = hashAs(b.r.IntN(4), ev.Parent)
			}
			list = append(list, []any{"BlockStored", hashes(ev), parent, ev.Tokens, ev.BlockSize, nil, "GPU", nil, nil, nil, nil, nil})
		case kvevent.Removed:
			list = append(list, []any{"BlockRemoved", hashes(ev), "GPU", nil})
		case kvevent.Cleared:
			list = append(list, []any{"AllBlocksCleared"})
		}
	}
	b.e.ts += 0.001
	payload, err := msgpack.Marshal([]any{b.e.ts, list, 0})
	if err != nil {
		b.e.t.Fatal(err)
	}
	b.e.pub.Publish(payload)
}

// Integers, negative integers and digests of 16 and 32 bytes in one stream name the same blocks.
func TestMixedHashTypesJoin(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 60, 3, kvwire.PublisherOptions{})
	m.ingest("a", b.e)
	for range 4 {
		for range 25 {
			b.publishMixed(b.step())
			b.e.publish(b.step()...)
		}
		m.exactAndOK(b)
	}
	if bad := m.count("bad_total"); bad != 0 {
		t.Errorf("%v counted as bad", bad)
	}
	m.neverPartial()
}

// offload copies blocks of gpu memory to cpu memory, or drops some there, and returns the event.
func (b *blockPool) offload() kvevent.Event {
	ev := kvevent.Event{Kind: kvevent.Stored, Medium: []string{"CPU", "cpu", "Cpu"}[b.r.IntN(3)]}
	if len(b.cpu) > 0 && b.r.IntN(3) == 0 {
		ev.Kind = kvevent.Removed
	}
	for h := range b.cpu {
		if ev.Kind == kvevent.Removed && len(ev.Hashes) < 3 {
			ev.Hashes = append(ev.Hashes, h)
			if b.cpu[h]--; b.cpu[h] == 0 {
				delete(b.cpu, h)
			}
		}
	}
	if ev.Kind == kvevent.Stored {
		for range 1 + b.r.IntN(4) {
			h := b.gpu[b.r.IntN(len(b.gpu))]
			ev.Hashes = append(ev.Hashes, h)
			b.cpu[h]++
		}
	}
	return ev
}

// Blocks offloaded as bare hashes are held where gpu memory has told what they are; a medium of no known name stores
// nothing, and removes from every other tier.
func TestOffloadedBlocksAreHeld(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	b := newBlockPool(t, 50, 4, kvwire.PublisherOptions{})
	m.ingest("a", b.e)
	for round := range 6 {
		for range 30 {
			b.e.publish(append(b.step(), b.offload())...)
		}
		m.exactAndOK(b)
		tape := b.e.stored(0, b.gpu[0])
		tape.Medium = "tape"
		b.e.publish(tape)
		var gone []uint64
		for h := range b.cpu {
			if gone = append(gone, h); len(gone) == 5 {
				break
			}
		}
		for _, h := range gone {
			delete(b.cpu, h) // all copies of it
		}
		b.e.publish(kvevent.Event{Kind: kvevent.Removed, Hashes: gone, Medium: "tape"})
		m.exactAndOK(b)
		if round%2 == 1 {
			b.e.publish(b.clear()) // of gpu memory alone
			m.exactAndOK(b)
		}
	}
	m.neverPartial()
}

// A grouped engine holds a block's copies per cache group.
type grouped struct {
	*blockPool
	full, other []int // groups that count, and groups that do not
	by          map[copyID]int
}

func (g *grouped) event(kind kvevent.Kind, group int, parent uint64, hashes ...uint64) kvevent.Event {
	ev := removed(hashes...)
	if kind == kvevent.Stored {
		ev = g.e.stored(parent, hashes...)
		ev.SpecKind = "full_attention"
		if slices.Contains(g.other, group) {
			ev.SpecKind, ev.SlidingWindow = "sliding_window", 128
			ev.Tokens = append(ev.Tokens, 1, 2, 3) // they span blocks that are left out
		}
	}
	ev.Group, ev.HasGroup = group, true
	for _, h := range hashes {
		if g.by[copyKey(h, group)]++; kind == kvevent.Removed {
			if g.by[copyKey(h, group)] -= 2; g.by[copyKey(h, group)] == 0 {
				delete(g.by, copyKey(h, group))
			}
		}
	}
	return ev
}

// deep is how many leading blocks of a prompt all groups that count hold.
func (g *grouped) deep(prompt []uint64) int {
	for i, h := range prompt {
		for _, group := range g.full {
			if g.by[copyKey(h, group)] == 0 {
				return i
			}
		}
	}
	return len(prompt)
}

// Groups of a sliding window are counted and say nothing about prefixes; of several full groups all must hold a block.
func TestCacheGroups(t *testing.T) {
	t.Parallel()
	for name, groups := range map[string]grouped{
		"sliding window beside full": {full: []int{0}, other: []int{1, 2}},
		"full behind sliding window": {full: []int{1}, other: []int{0}},
		"several full ones":          {full: []int{0, 2}, other: []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			g := &groups
			g.blockPool, g.by = newBlockPool(t, 10_000, 5, kvwire.PublisherOptions{}), map[copyID]int{}
			m.ingest("a", g.e)
			r := rand.New(rand.NewPCG(5, 5))
			var prompts [][]uint64
			for round := range 40 {
				prompt := g.grow(1 + r.IntN(4))
				prompts = append(prompts, prompt)
				var events []kvevent.Event
				for _, group := range slices.Concat(g.full, g.other) {
					for i, h := range prompt {
						if g.by[copyKey(h, group)] == 0 {
							parent := uint64(0)
							if i > 0 {
								parent = prompt[i-1]
							}
							events = append(events, g.event(kvevent.Stored, group, parent, h))
						}
					}
				}
				for c := range g.by {
					if r.IntN(4) == 0 {
						events = append(events, g.event(kvevent.Removed, c.group, 0, c.hash))
					}
				}
				g.e.publish(events...)
				if round%10 != 9 {
					continue
				}
				m.holds(g.e, g.by)
				for _, p := range prompts {
					want := g.deep(p)
					eventually(t, fmt.Sprintf("depth %d", want), func() bool { return m.depths(g.e, p) == [2]int{want, want} })
				}
			}
			m.record(g.e, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK })
			m.neverPartial()
		})
	}
}

// Of a batch in which an event cannot be read the others are kept, and one that cannot be read at all uses up its
// sequence; the engine goes on, partial, as something is not known, until its next clear.
func TestUnreadableEventsAndBatches(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string]func(ts float64, good kvevent.Event) []byte{
		"event": func(ts float64, good kvevent.Event) []byte {
			raw, err := msgpack.Marshal([]any{ts, []any{[]any{"BlockStored", "no hashes", nil, 7, 16},
				[]any{"BlockStored", good.Hashes, nil, good.Tokens, good.BlockSize, nil, "GPU"}, []any{"BlockRemoved", "neither"}}, 0})
			if err != nil {
				t.Fatal(err)
			}
			return raw
		},
		"batch": func(float64, kvevent.Event) []byte { return []byte("no msgpack") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			b := newBlockPool(t, 60, 6, kvwire.PublisherOptions{})
			m.ingest("a", b.e)
			b.publish(10)
			first := m.exactAndOK(b)
			prompt := b.single()
			events := b.run(prompt)
			b.e.ts += 0.001
			b.e.pub.Publish(payload(b.e.ts, events[len(events)-1]))
			if name == "batch" {
				_ = b.drop(prompt[0]) // it could not tell
			}
			b.publish(10)
			if g := m.exact(b); g != first {
				t.Errorf("generation %d after %d", g, first)
			}
			m.record(b.e, "partial", func(r fleet.Engine) bool {
				return r.State == fleet.Partial && strings.Contains(r.Why, "cannot be read")
			})
			b.e.publish(append(append(b.step(), b.clear()), b.step()...)...)
			m.exactAndOK(b)
			if n := m.count("replays_total", "outcome=silent"); n != 0 {
				t.Errorf("%v replays without an answer", n)
			}
		})
	}
}
