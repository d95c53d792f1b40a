package bench

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/warmpath/warmpath/libs/prefix"
)

// As published, a key remembers the ten engines that stored it last, and a removal makes room for none of the others.
func TestPublishedCapForgetsTheOldest(t *testing.T) {
	for name, x := range map[string]Index{"two-level LRU": NewTwoLevelLRU(Published, true), "ordered walk": NewOrderedWalk(Published)} {
		c := newWork(1000).short[0]
		for e := range 16 {
			x.Apply(c.store(engineName(e), 0, runLength))
		}
		x.Apply(c.store(engineName(6), 0, runLength)) // used again: not the oldest any more
		x.Apply(c.store(engineName(16), 0, runLength))
		x.Apply(c.remove(engineName(15), 0, runLength))
		var got, want []string
		for _, d := range x.Match(c.keys, nil) {
			if d.GPU != runLength {
				t.Errorf("%s: %+v", name, d)
			}
			got = append(got, d.Engine)
		}
		for _, e := range []int{6, 8, 9, 10, 11, 12, 13, 14, 16} {
			want = append(want, engineName(e))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s remembers %v, want %v", name, got, want)
		}
	}
}

// check says how a tree contradicts itself: a worker's map must name exactly the blocks that the nodes say it holds,
// and no node may be left that nobody holds and nothing hangs on.
func (t *Radix) check() error {
	holds := map[string]int{}
	for at, n := range t.nodes {
		if at == 0 || n == nil {
			continue
		}
		if t.child(n.parent, n.keys[0]) != uint32(at) {
			return fmt.Errorf("node %d is no child of its parent", at)
		}
		if n.full.empty() && len(n.cut)+len(n.few)+len(n.many) == 0 {
			return fmt.Errorf("node %d is empty", at)
		}
		for name, w := range t.workers {
			held := n.held(w.slot)
			holds[name] += held
			for i := range held {
				p, known := w.blocks[n.hashes[i]]
				if !known {
					return fmt.Errorf("%s does not know block %d of node %d", name, i, at)
				}
				if _, p := t.find(p); p.node != uint32(at) || p.pos != uint32(i) {
					return fmt.Errorf("%s finds block %d of node %d at %+v", name, i, at, p)
				}
			}
		}
	}
	for name, w := range t.workers {
		if len(w.blocks) != holds[name] {
			return fmt.Errorf("%s knows %d blocks and holds %d", name, len(w.blocks), holds[name])
		}
	}
	return nil
}

// checked is a Radix that is looked over after every step.
type checked struct {
	*Radix

	t *testing.T
}

func (c checked) Apply(s *Step) {
	c.Radix.Apply(s)
	if err := c.check(); err != nil {
		c.t.Fatalf("after %+v: %v", s, err)
	}
}

func TestRadixHoldsTogether(t *testing.T) {
	for name, h := range histories() {
		t.Run(name, func(t *testing.T) {
			h.Steps = 300
			x := checked{NewRadix(), t}
			h.Judge(x)
			for e := range h.Engines {
				x.Drop(engineName(e))
				if err := x.check(); err != nil {
					t.Fatal(err)
				}
			}
			if len(x.nodes) != len(x.free)+1 {
				t.Errorf("%d of %d nodes are left when all engines are gone", len(x.nodes)-1-len(x.free), len(x.nodes))
			}
		})
	}
}

// Removing a block forgets what the engine holds behind it on the same edge, until that is stored again.
func TestRadixUndercountsBehindAHole(t *testing.T) {
	c, x := newWork(1000).short[0], NewRadix()
	depth := func() int {
		for _, d := range x.Match(c.keys, nil) {
			return d.GPU
		}
		return 0
	}
	x.Apply(c.store("e", 0, 32))
	x.Apply(c.remove("e", 10, 11))
	x.Apply(c.store("e", 10, 11))
	if got := depth(); got != 11 {
		t.Errorf("depth %d after a hole was filled, want 11 although 32 are held", got)
	}
	x.Apply(c.store("e", 11, 32))
	if got := depth(); got != 32 {
		t.Errorf("depth %d after all were stored, want 32", got)
	}
}

// Readers beside a writer and a drop see depths that were true at some time.
func TestReadersBesideAWriter(t *testing.T) {
	for _, rival := range Rivals() {
		t.Run(rival.Name, func(t *testing.T) {
			x, c := rival.New(), newWork(1000).chains[0]
			x.Apply(c.store("held", 0, chainLength))
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					var dst []prefix.Depth
					for {
						select {
						case <-stop:
							return
						default:
						}
						dst = x.Match(c.keys, dst[:0])
						if !slices.Contains(dst, prefix.Depth{Engine: "held", GPU: chainLength, Any: chainLength}) {
							t.Errorf("the engine that nobody touches is not in %v", dst)
							return
						}
					}
				})
			}
			for range 20 {
				x.Apply(c.store("other", 0, 300))
				x.Apply(c.remove("other", 100, 300))
				x.Drop("other")
			}
			close(stop)
			wg.Wait()
		})
	}
}
