package prefix

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A span is what an engine's depths in one chain may be: both least and greatest, and whether it may be unknown.
type span struct{ gpu, any [2]uint8 } // least above greatest where it is surely unknown

const unknownTo = 255 // the least of what is surely unknown

func exactly(gpu, any int) span {
	return span{[2]uint8{uint8(gpu), uint8(gpu)}, [2]uint8{uint8(any), uint8(any)}}
}

func unknown() span { return span{[2]uint8{unknownTo, 0}, [2]uint8{unknownTo, 0}} }

func (s span) or(o span) span {
	return span{[2]uint8{min(s.gpu[0], o.gpu[0]), max(s.gpu[1], o.gpu[1])}, [2]uint8{min(s.any[0], o.any[0]), max(s.any[1], o.any[1])}}
}

func (s span) word(absent bool) uint64 {
	w := uint64(s.gpu[0]) | uint64(s.gpu[1])<<8 | uint64(s.any[0])<<16 | uint64(s.any[1])<<24
	if absent {
		w |= 1 << 32
	}
	return w
}

func spanOf(w uint64) (s span, absent bool) {
	return span{[2]uint8{uint8(w), uint8(w >> 8)}, [2]uint8{uint8(w >> 16), uint8(w >> 24)}}, w>>32 != 0
}

// A diary tells what an engine's depths in one chain were and when: what they may be during an operation, announced
// before it begins, and what they are after it.
type diary struct {
	at    atomic.Uint64
	pages [1 << 10]atomic.Uint64
}

func (d *diary) write(s span, absent bool) {
	at := d.at.Load() + 1
	d.pages[at%uint64(len(d.pages))].Store(s.word(absent))
	d.at.Store(at)
}

// between is all that held from one page to another, or false if the first ones have been written over.
func (d *diary) between(from, to uint64) (all span, absent, ok bool) {
	all = unknown()
	for at := from; at <= to; at++ {
		s, a := spanOf(d.pages[at%uint64(len(d.pages))].Load())
		all, absent = all.or(s), absent || a
	}
	return all, absent, d.at.Load()-from < uint64(len(d.pages))-2
}

const (
	crowdChains  = 3
	crowdLength  = 60
	crowdEngines = 8
)

// A crowd is an Index with engines whose depths readers check while the writer changes them.
type crowd struct {
	t       *testing.T
	x       *Index
	pick    func(n int) int
	chains  [crowdChains][]uint64
	strange [][]uint64 // chains that only passing engines hold
	ids     [crowdEngines]string
	depth   [crowdEngines][crowdChains][2]int // gpu and any
	gone    [crowdEngines]bool
	diary   [crowdEngines][crowdChains]diary
	passing []string
	started int
}

// crammed makes n keys that lie in a few tables, where slots are used again all the time.
func crammed(pick func(n int) int, n, tables int) (keys []uint64) {
	for range n {
		keys = append(keys, keyOf(pick(tables), uint64(pick(1<<62))<<12|uint64(pick(2))<<11|occupied))
	}
	return keys
}

func newCrowd(t *testing.T, seed uint64) *crowd {
	c := &crowd{t: t, x: NewIndex(), pick: picker(seed)}
	for i := range c.chains {
		c.chains[i] = crammed(c.pick, crowdLength, 3)
	}
	for range 20 {
		c.strange = append(c.strange, crammed(c.pick, 20, 3))
	}
	for i := range c.ids {
		c.ids[i] = fmt.Sprintf("e%02d", i)
		c.x.Reset(c.ids[i], 0)
		for k := range c.chains {
			c.diary[i][k].write(exactly(0, 0), false)
		}
	}
	return c
}

// set runs an operation that brings an engine's depths in a chain to these.
func (c *crowd) set(e, k, gpu, any int, do func()) {
	was := c.depth[e][k]
	c.diary[e][k].write(exactly(was[0], was[1]).or(exactly(gpu, any)), false)
	do()
	c.depth[e][k] = [2]int{gpu, any}
	c.diary[e][k].write(exactly(gpu, any), false)
}

// setAll runs an operation that brings all depths of an engine to those of next, or makes it unknown.
func (c *crowd) setAll(e int, next [crowdChains][2]int, gone bool, do func()) {
	for k := range c.chains {
		s := exactly(next[k][0], next[k][1])
		switch was := exactly(c.depth[e][k][0], c.depth[e][k][1]); {
		case gone:
			s = was
		case !c.gone[e]:
			s = s.or(was)
		}
		c.diary[e][k].write(s, gone || c.gone[e])
	}
	do()
	c.depth[e], c.gone[e] = next, gone
	for k := range c.chains {
		s := exactly(next[k][0], next[k][1])
		if gone {
			s = unknown()
		}
		c.diary[e][k].write(s, gone)
	}
}

func backwards(keys []uint64) []uint64 {
	keys = slices.Clone(keys)
	slices.Reverse(keys)
	return keys
}

// move changes an engine's depths in one chain.
func (c *crowd) move(e, k int) {
	id, keys := c.ids[e], c.chains[k]
	gpu, any := c.depth[e][k][0], c.depth[e][k][1]
	to := c.pick(crowdLength + 1)
	switch c.pick(5) {
	case 0, 1: // gpu memory comes to hold more, the first of it from another tier
		if to <= gpu {
			return
		}
		c.set(e, k, min(to, any), any, func() { c.x.Apply(id, &Run{Copy: Added, GPU: Added, Keys: keys[gpu:max(gpu, min(to, any))]}) })
		if to > any {
			c.set(e, k, to, to, func() { c.x.Apply(id, show(keys[any:to])) })
		}
	case 2: // and another tier
		if to > any {
			c.set(e, k, gpu, to, func() { c.x.Apply(id, &Run{Copy: Added, Tier: CPU, Any: Added, Keys: keys[any:to]}) })
		}
	case 3: // from gpu memory to another tier
		if to < gpu {
			c.set(e, k, to, any, func() { c.x.Apply(id, &Run{Copy: Removed, GPU: Removed, Keys: backwards(keys[to:gpu])}) })
		}
	case 4: // gone from both
		if cut := max(to, gpu); cut < any {
			c.set(e, k, gpu, cut, func() {
				c.x.Apply(id, &Run{Copy: Removed, Tier: CPU, Any: Removed, Keys: backwards(keys[cut:any])})
			})
		}
		if to < gpu {
			c.set(e, k, to, to, func() { c.x.Apply(id, hide(keys[to:gpu])) })
		}
	}
}

// replace brings an engine to some depths by a snapshot, half the time to those that it has.
func (c *crowd) replace(e int) {
	next := c.depth[e]
	if c.pick(2) == 0 {
		for k := range next {
			next[k][1] = c.pick(crowdLength + 1)
			next[k][0] = c.pick(next[k][1] + 1)
		}
	}
	c.setAll(e, next, false, func() {
		c.x.Replace(c.ids[e], 1, func(yield func(*Run) bool) {
			for k, d := range next {
				keys := c.chains[k]
				if !yield(show(keys[:d[0]])) || !yield(&Run{Copy: Added, Tier: CPU, Any: Added, Keys: keys[d[0]:d[1]]}) {
					return
				}
			}
		})
	})
}

// pass lets engines come and go that hold strange chains, at times more than 64 in all.
func (c *crowd) pass(most int) {
	if len(c.passing) < most && c.pick(2) == 0 {
		c.started++
		id := fmt.Sprint("p", c.started)
		c.passing = append(c.passing, id)
		for range 1 + c.pick(4) {
			keys := c.strange[c.pick(len(c.strange))]
			c.x.Apply(id, show(keys))
			c.x.Apply(id, toCPU(keys[c.pick(len(keys)):]))
		}
		c.x.Apply(id, show(c.chains[c.pick(crowdChains)][:c.pick(crowdLength)]))
	}
	if len(c.passing) > 0 && (len(c.passing) >= most || c.pick(3) == 0) {
		i := c.pick(len(c.passing))
		c.x.Drop(c.passing[i])
		c.passing = slices.Delete(c.passing, i, i+1)
	}
}

// settle lets only the lasting engines stay, begins their lives anew, and sweeps.
func (c *crowd) settle(deadline time.Time) {
	for len(c.passing) > 0 {
		c.pass(0)
	}
	for range 2 { // at the second time the low numbers are free
		for e := range c.ids {
			c.replace(e)
		}
		for !c.x.Sweep(1<<16) && time.Now().Before(deadline) {
			runtime.Gosched()
		}
	}
}

func (c *crowd) step(most int) {
	e := c.pick(crowdEngines)
	var none [crowdChains][2]int
	switch op := c.pick(100); {
	case op < 20:
		c.pass(most)
	case op < 30:
		c.x.Sweep(1 + c.pick(2000))
	case op < 36 || c.gone[e]:
		c.replace(e)
	case op < 37:
		c.setAll(e, none, false, func() { c.x.Apply(c.ids[e], &Run{Clear: true}) })
	case op < 38:
		c.setAll(e, none, false, func() { c.x.Reset(c.ids[e], 1) })
	case op < 39:
		c.setAll(e, none, true, func() { c.x.Drop(c.ids[e]) })
	default:
		c.move(e, c.pick(crowdChains))
	}
}

// ask compares one answer with the diaries, and reports whether they reached back far enough.
func (c *crowd) ask(k int, dst []Depth) ([]Depth, bool) {
	var from [crowdEngines]uint64
	for e := range from {
		from[e] = c.diary[e][k].at.Load()
	}
	dst = c.x.Match(c.chains[k], dst[:0])
	checked := false
	for e, id := range c.ids {
		d := &c.diary[e][k]
		to := d.at.Load()
		s, absent, ok := d.between(from[e], to)
		if !ok {
			continue
		}
		checked = true
		i, known := slices.BinarySearchFunc(dst, id, func(d Depth, id string) int { return strings.Compare(d.Engine, id) })
		switch {
		case !known && !absent, known && s.any[0] == unknownTo:
			c.t.Errorf("%s in the answer: %t, may it be: %t and %+v", id, known, !absent, s)
		case known && (dst[i].GPU < int(s.gpu[0]) || dst[i].GPU > int(s.gpu[1]) || dst[i].Any < int(s.any[0]) || dst[i].Any > int(s.any[1])):
			c.t.Errorf("%+v, but from page %d to %d its depths were %+v", dst[i], from[e], to, s)
		}
	}
	return dst, checked
}

// same compares the Index with the model, when no one writes.
func (c *crowd) same() {
	holds, err := c.x.holdings()
	if err != nil {
		c.t.Error(err)
	}
	for e, id := range c.ids {
		held := 0
		info, known := c.x.Engine(id)
		if known == c.gone[e] || info.Surplus+info.Missing != 0 {
			c.t.Errorf("%s known: %t, %+v", id, known, info)
		}
		for k, keys := range c.chains {
			for i, key := range keys {
				if holds[id][key] != (i < c.depth[e][k][1]) {
					c.t.Fatalf("%s holds key %d of chain %d: %t, any depth %d", id, i, k, holds[id][key], c.depth[e][k][1])
				}
			}
			held += c.depth[e][k][1]
		}
		if info.VisibleAny != held || len(holds[id]) != held {
			c.t.Errorf("%s: %d keys, %d counted, want %d", id, len(holds[id]), info.VisibleAny, held)
		}
	}
	for k := range c.chains {
		var dst []Depth
		for range 2 {
			dst, _ = c.ask(k, dst)
		}
	}
}

// Readers run beside a writer that does all that a writer can: depths in both sets grow and shrink, blocks move between
// tiers, engines are cleared, replaced, dropped and come back, slots, sets and holder numbers are used again, tables are
// rewritten, and holders become more than 64 and few again. Each depth of each answer lies between the least and
// the greatest that the engine had meanwhile; when the writer rests, answers and rows are exact.
// With the race detector readers are made to pause where they can be overtaken (pause.go).
func TestReadersBesideWriter(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newCrowd(t, seed)
			var done atomic.Bool
			var answers, checked, wide, narrow atomic.Int64
			var wg sync.WaitGroup
			for reader := range 2 {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(reader)))
					var dst []Depth
					var ids []string
					for !done.Load() && !t.Failed() {
						var ok bool
						dst, ok = c.ask(r.IntN(crowdChains), dst)
						answers.Add(1)
						if ok {
							checked.Add(1)
						}
						runtime.Gosched()
						if ids = c.x.Engines(ids[:0]); !slices.IsSorted(ids) || c.x.Rows() < 0 {
							t.Errorf("engines %v, %d rows", ids, c.x.Rows())
						}
						if i, ok := c.x.Engine(ids[r.IntN(len(ids))]); ok && (i.VisibleGPU > i.VisibleAny || i.VisibleGPU < 0) {
							t.Errorf("%+v", i)
						}
					}
				})
			}
			deadline := time.Now().Add(20 * time.Second)
			for round := 0; round < 12 || false && time.Now().Before(deadline); round++ {
				for n := 0; n < 700 && !t.Failed(); n++ {
					c.step([]int{8, 90, 20}[round%3])
					if n%16 == 0 {
						runtime.Gosched()
					}
				}
				if round%3 == 2 {
					c.settle(deadline)
				}
				if c.x.sets != nil {
					wide.Add(1)
				} else {
					narrow.Add(1)
				}
				c.same()
			}
			done.Store(true)
			wg.Wait()
			if wide.Load() == 0 || narrow.Load() == 0 || checked.Load() < answers.Load()/2 {
				t.Errorf("%d rounds ended with shared sets, %d without; %d of %d answers checked", wide.Load(), narrow.Load(), checked.Load(), answers.Load())
			}
			t.Logf("%d answers checked, epoch %d", checked.Load(), c.x.epochs.now.Load())
		})
	}
}

// Two kinds of engines share a table and no key. However slots, sets and tables change under a reader, no engine is
// said to hold a key of the other kind.
func TestRowsAreNotMixedUp(t *testing.T) {
	for _, engines := range []int{2, 70} {
		x, pick := NewIndex(), picker(1)
		keys := [2][]uint64{crammed(pick, 40, 1), crammed(pick, 40, 1)}
		var ids []string
		for i := range engines {
			ids = append(ids, fmt.Sprintf("e%02d", i))
			x.Reset(ids[i], 1)
		}
		var done atomic.Bool
		var answers atomic.Int64
		var wg sync.WaitGroup
		for reader := range 2 {
			wg.Go(func() {
				var dst []Depth
				for n := 0; !done.Load() && !t.Failed(); n++ {
					kind := n % 2
					dst = x.Match(keys[kind][n/2%40:][:1], dst[:0])
					for i, d := range dst {
						if i%2 != kind && d.Any != 0 {
							t.Errorf("%+v of a key that it never had", d)
						}
					}
					if answers.Add(1)%8 == int64(reader) {
						runtime.Gosched()
					}
				}
			})
		}
		shown := make([][40]bool, engines)
		deadline := time.Now().Add(10 * time.Second)
		for n := 0; !t.Failed() && (n < 40_000 || answers.Load() < 5000 && time.Now().Before(deadline)); n++ {
			e, k := pick(2), pick(40) // the others hold nothing, but make sets wide
			key := keys[e][k : k+1]
			if shown[e][k] = !shown[e][k]; shown[e][k] {
				x.Apply(ids[e], show(key))
			} else {
				x.Apply(ids[e], hide(key))
			}
			if n%64 == 0 {
				runtime.Gosched()
			}
		}
		done.Store(true)
		wg.Wait()
		t.Logf("%d engines: %d answers, epoch %d", engines, answers.Load(), x.epochs.now.Load())
	}
}

// What Engine tells is never half of one state and half of another.
func TestNoticeIsWhole(t *testing.T) {
	var n notice
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				if i := n.get(); i.Digest != i.Generation || uint64(i.VisibleAny) != i.Digest || i.Missing != i.Digest {
					t.Errorf("%+v", i)
					return
				}
			}
		})
	}
	for i := range uint64(20_000) {
		n.put(&EngineInfo{Generation: i, VisibleGPU: int(i), VisibleAny: int(i), Digest: i, Surplus: i, Missing: i})
	}
	done.Store(true)
	wg.Wait()
}
