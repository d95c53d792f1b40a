package bench

import "github.com/warmpath/warmpath/libs/prefix"

// walkScratch is the state of one walk, by ordinal: depth[n] is how many keys pod n has held from the first one on.
type walkScratch struct {
	depth []uint32
	first []uint32 // pods of the first key
}

// Match walks the chain and then marks what it read as used.
func (w *OrderedWalk) Match(keys []uint64, dst []prefix.Depth) []prefix.Depth {
	w.podsMu.RLock()
	pods := w.pods // only ever appended to
	w.podsMu.RUnlock()
	sc, _ := w.scratch.Get().(*walkScratch)
	defer w.scratch.Put(sc)
	for len(sc.depth) < len(pods) {
		sc.depth = append(sc.depth, 0)
	}
	sc.first = sc.first[:0]
	visited := 0
	for at, key := range keys {
		c := w.peek(key)
		if c == nil {
			break
		}
		visited = at + 1
		if sc.visit(c, uint32(at)) == 0 {
			break
		}
	}
	w.promote(keys[:visited])
	for _, n := range sc.first {
		depth := int(sc.depth[n])
		dst = append(dst, prefix.Depth{Engine: pods[n], GPU: depth, Any: depth})
		sc.depth[n] = 0
	}
	return dst
}

// visit counts the pods of one key that hold all before it. Pods that came after the walk began are left out.
func (sc *walkScratch) visit(c *podSlice, at uint32) (alive int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.entries {
		n := c.entries[i].ordinal
		if int(n) >= len(sc.depth) || sc.depth[n] != at {
			continue
		}
		if at == 0 {
			sc.first = append(sc.first, n)
		}
		sc.depth[n] = at + 1
		alive++
	}
	return alive
}

func (w *OrderedWalk) promote(keys []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		w.data.Get(key)
	}
}
