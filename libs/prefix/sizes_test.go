package prefix

import (
	"fmt"
	"slices"
	"testing"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// A cutting is an engine whose blocks have another size than the pool's, with all that it holds written down block by
// block: what Match must say follows from that by comparing tokens.
type cutting struct {
	*rig
	size   int
	copies map[uint64]int // of blocks by hash
	known  map[*uint32][]uint64
}

func newCutting(t *testing.T, canonical, size int) *cutting {
	return &cutting{newRig(t, EngineOptions{BlockSize: canonical}), size, map[uint64]int{}, map[*uint32][]uint64{}}
}

// hashes names a prompt's blocks as vLLM does: by all tokens up to their ends.
func (c *cutting) hashes(prompt []uint32) []uint64 {
	hashes := c.known[&prompt[0]]
	for i := len(hashes); i < len(prompt)/c.size; i++ {
		h := uint64(c.size)
		if i > 0 {
			h = hashes[i-1]
		}
		for _, t := range prompt[i*c.size : (i+1)*c.size] {
			h = finish(h ^ uint64(t))
		}
		hashes = append(hashes, h)
	}
	c.known[&prompt[0]] = hashes
	return hashes[:len(prompt)/c.size]
}

// store announces blocks from..to of a prompt in one event.
func (c *cutting) store(prompt []uint32, from, to int) {
	c.t.Helper()
	hashes := c.hashes(prompt)
	ev := stored(prompt[from*c.size:to*c.size], c.size, hashes[from:to]...)
	if from > 0 {
		ev = under(hashes[from-1], ev)
	}
	for _, h := range hashes[from:to] {
		c.copies[h]++
	}
	c.fold(ev)
}

// remove takes one copy of each of these blocks that is there, in one event.
func (c *cutting) remove(prompt []uint32, blocks ...int) {
	c.t.Helper()
	ev := kvevent.Event{Kind: kvevent.Removed}
	for _, i := range blocks {
		if h := c.hashes(prompt)[i]; c.copies[h] > 0 {
			c.copies[h]--
			ev.Hashes = append(ev.Hashes, h)
		}
	}
	c.fold(ev)
}

// held is how many tokens of a prompt the engine holds from its start without a hole.
func (c *cutting) held(prompt []uint32) (n int) {
	for _, h := range c.hashes(prompt) {
		if c.copies[h] == 0 {
			break
		}
		n += c.size
	}
	return n
}

// verify compares what Match says of a query with what the engine holds of any of these prompts.
func (c *cutting) verify(what string, query []uint32, prompts ...[]uint32) {
	c.t.Helper()
	canonical, want := c.a.o.BlockSize, 0
	for _, p := range prompts {
		same := 0
		for same < min(len(query), c.held(p)) && query[same] == p[same] {
			same++
		}
		want = max(want, same/canonical)
	}
	keys := blockkey.Keys(nil, blockkey.Scope{Pool: "p", BlockSize: canonical}, query, nil)
	if got := c.x.Match(keys, nil); len(got) != 1 || got[0].GPU != want || got[0].Any != want {
		c.t.Fatalf("%d in %d, %s: match %+v, want %d of %d keys", c.size, canonical, what, got, want, len(keys))
	}
}

// Blocks of 16 tokens make canonical ones of 64, also where events are cut at odd places, arrive out of order, and lose
// and regain one of the four that make a canonical block.
func TestSmallBlocksInLarge(t *testing.T) {
	c := newCutting(t, 64, 16)
	a := prompt(640, 1)
	b := append(slices.Clone(a[:100]), prompt(156, 5000)...) // leaves within a canonical block, and within its own
	check := func(what string) {
		t.Helper()
		for _, q := range [][]uint32{a, a[:63], a[:64], a[:256], a[:300], b, b[:128], append(slices.Clone(a[:192]), 7, 8, 9)} {
			c.verify(what, q, a, b)
		}
	}
	steps := []struct {
		what string
		do   func()
		a, b int // canonical blocks of a and b by hand
	}{
		{"96 tokens", func() { c.store(a, 0, 6) }, 1, 1},
		{"160 more", func() { c.store(a, 6, 16) }, 4, 1},
		{"three blocks", func() { c.store(a, 16, 19) }, 4, 1},
		{"five blocks out of order", func() { c.store(a, 24, 29) }, 4, 1},
		{"the five before them", func() { c.store(a, 19, 24) }, 7, 1},
		{"one of four in the middle goes", func() { c.remove(a, 9) }, 2, 1},
		{"and comes back", func() { c.store(a, 9, 10) }, 7, 1},
		{"twice", func() { c.store(a, 9, 10) }, 7, 1},
		{"goes once", func() { c.remove(a, 9) }, 7, 1},
		{"goes for good", func() { c.remove(a, 9) }, 2, 1},
		{"comes back with its neighbours", func() { c.store(a, 8, 12) }, 7, 1},
		{"another prompt from within a block", func() { c.store(b, 6, 11) }, 7, 2},
		{"the first of all goes", func() { c.remove(a, 0) }, 0, 0},
		{"and comes back last", func() { c.store(a, 0, 1) }, 7, 2},
		{"the tail goes, last first", func() { c.remove(a, 28, 27, 26, 25) }, 6, 2},
		{"the head goes, first first", func() { c.remove(a, 0, 1, 2, 3) }, 0, 0},
	}
	for _, s := range steps {
		s.do()
		check(s.what)
		if gotA, gotB := c.held(a)/64, c.held(b)/64; gotA != s.a || gotB != s.b {
			t.Errorf("%s: the model holds %d and %d, want %d and %d", s.what, gotA, gotB, s.a, s.b)
		}
	}
}

// Whatever an engine's block size, Match says how much of a prompt it holds, after any stores and removals.
func TestBlockSizes(t *testing.T) {
	for _, s := range []struct{ canonical, size int }{{64, 16}, {16, 64}, {64, 32}, {32, 64}, {32, 16}, {16, 16}, {256, 16}, {16, 256}, {8, 32}} {
		t.Run(fmt.Sprintf("%d in %d", s.size, s.canonical), func(t *testing.T) {
			t.Parallel()
			pick := picker(uint64(s.canonical + s.size))
			c := newCutting(t, s.canonical, s.size)
			var prompts [][]uint32
			for i := range 6 {
				p := prompt(max(4*s.canonical, 10*s.size), uint32(1+i*10_000))
				if i > 0 {
					copy(p, prompts[pick(i)][:pick(len(p))]) // a shared beginning of any length
				}
				prompts = append(prompts, p)
			}
			queries := 0
			for step := range 400 {
				p := prompts[pick(len(prompts))]
				n := len(p) / s.size
				from := pick(n)
				to := from + 1 + pick(n-from)
				switch pick(5) {
				case 0: // the next blocks, as an engine does
					if from = c.held(p) / s.size; from < n {
						c.store(p, from, from+1+pick(n-from))
					}
				case 1:
					c.store(p, from, to)
				case 2:
					c.remove(p, from)
				case 3:
					c.remove(p, to-1, from)
				default:
					var tail []int
					for i := n - 1; i >= from; i-- {
						tail = append(tail, i)
					}
					c.remove(p, tail...)
				}
				for range 4 {
					q := prompts[pick(len(prompts))]
					c.verify(fmt.Sprintf("step %d", step), q[:1+pick(len(q))], prompts...)
					queries++
				}
			}
			if st := c.a.Stats(); st.Refused != "" || st.Malformed != 0 || st.Unjoinable != 0 {
				t.Errorf("%+v", st)
			}
			t.Logf("%d queries, 0 mismatches", queries)
		})
	}
}

// An event of hundreds of blocks gives each the key that a request has there, also where multimodal items, or blocks
// that are known already, lie among them, and goes on where the one before it ended.
func TestLongEvents(t *testing.T) {
	for seed := range uint64(30) {
		pick := picker(seed)
		canonical, size := []int{16, 64, 16}[seed%3], []int{16, 16, 64}[seed%3]
		r := newRig(t, EngineOptions{BlockSize: canonical})
		n := 2*window + pick(3*window)
		tokens := prompt(n*size, 1)
		scope := blockkey.Scope{Pool: "p", BlockSize: canonical, Salt: "salt"}
		var items []blockkey.Item
		extra := make([][]kvevent.ExtraKey, n)
		extra[0] = []kvevent.ExtraKey{{Text: "salt"}}
		for range pick(4) {
			at := 1 + pick(n*size-1)
			items = append(items, blockkey.Item{ID: fmt.Sprint(at), Start: at})
		}
		slices.SortFunc(items, func(a, b blockkey.Item) int { return a.Start - b.Start })
		for _, it := range items {
			block := it.Start / size
			extra[block] = append([]kvevent.ExtraKey{{Text: it.ID, Offset: int64(it.Start % size), HasOffset: true}}, extra[block]...)
			slices.SortStableFunc(extra[block], func(a, b kvevent.ExtraKey) int {
				if !a.HasOffset || !b.HasOffset {
					return 0
				}
				return int(a.Offset - b.Offset)
			})
		}
		for from := 0; from < n; {
			to := min(n, from+1+pick(2*window))
			ev := kvevent.Event{Kind: kvevent.Stored, BlockSize: size, Tokens: tokens[from*size : to*size], HasExtra: true, Extra: extra[from:to]}
			for i := from; i < to; i++ {
				ev.Hashes = append(ev.Hashes, finish(uint64(i)))
			}
			if from > 0 {
				ev = under(finish(uint64(from-1)), ev)
			}
			r.fold(ev)
			if from = to; from < n && pick(2) == 0 {
				from = max(0, from-pick(40)) // some are known already
			}
		}
		keys := blockkey.Keys(nil, scope, tokens, items)
		if d := r.x.Match(keys, nil); d[0].GPU != len(keys) {
			t.Fatalf("seed %d: %d of %d keys, items %v", seed, d[0].GPU, len(keys), items)
		}
	}
}
