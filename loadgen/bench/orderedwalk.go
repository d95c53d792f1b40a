package bench

import (
	"slices"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/warmpath/warmpath/libs/prefix"
)

// entryRef is a pod entry with the number of its pod.
type entryRef struct {
	podEntry

	ordinal uint32
}

// podSlice is the engines of one key, the one added last at the end.
type podSlice struct {
	mu      sync.Mutex
	entries []entryRef
}

// OrderedWalk stands in for the index of llm-d-router after its read path was rewritten: keys are peeked at under a
// shared lock in the order of the chain, entries are a slice that is read in place, depths add up in pooled scratch by
// ordinal, the walk ends where the last engine does, and one exclusive pass promotes what was read. Writing is as in
// TwoLevelLRU. Exact as long as no key has more engines than it remembers.
type OrderedWalk struct {
	podsPerKey int

	add        sync.Mutex   // one writer at a time
	mu         sync.RWMutex // of data
	data       *simplelru.LRU[uint64, *podSlice]
	engineKeys *lru.Cache[uint64, []uint64]

	podsMu   sync.RWMutex // of the two below
	ordinals map[string]uint32
	pods     []string
	scratch  sync.Pool
}

// NewOrderedWalk returns one that remembers so many engines a key.
func NewOrderedWalk(podsPerKey int) *OrderedWalk {
	data, err := simplelru.NewLRU[uint64, *podSlice](indexSize, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &OrderedWalk{
		podsPerKey: podsPerKey, data: data, engineKeys: newLRU[[]uint64](indexSize), ordinals: map[string]uint32{},
		scratch: sync.Pool{New: func() any { return &walkScratch{} }},
	}
}

// ordinal numbers pods in the order in which they come.
func (w *OrderedWalk) ordinal(pod string) uint32 {
	w.podsMu.Lock()
	defer w.podsMu.Unlock()
	n, known := w.ordinals[pod]
	if !known {
		n = uint32(len(w.pods))
		w.ordinals[pod] = n
		w.pods = append(w.pods, pod)
	}
	return n
}

// Apply adds the engine under the run's keys, or takes it from those that its hashes stand for.
func (w *OrderedWalk) Apply(s *Step) {
	ref := entryRef{podEntry{pod: s.Engine, tier: "gpu"}, w.ordinal(s.Engine)}
	w.add.Lock()
	defer w.add.Unlock()
	if s.Run.Copy == prefix.Removed {
		for _, hash := range s.Run.Hashes {
			w.evict(hash, ref.ordinal)
		}
		return
	}
	for i, hash := range s.Run.Hashes {
		w.engineKeys.Add(hash, []uint64{s.Run.Keys[i]})
	}
	for _, key := range s.Run.Keys {
		w.mu.Lock()
		c, found := w.data.Get(key)
		if !found {
			c = &podSlice{}
			w.data.Add(key, c)
		}
		w.mu.Unlock()
		c.mu.Lock()
		c.put(ref, w.podsPerKey)
		c.mu.Unlock()
	}
}

// put makes an entry the newest, and forgets the oldest where there are too many.
func (c *podSlice) put(ref entryRef, limit int) {
	if at := c.find(ref.ordinal); at >= 0 {
		c.entries = slices.Delete(c.entries, at, at+1)
	} else if len(c.entries) == limit {
		c.entries = slices.Delete(c.entries, 0, 1)
	}
	c.entries = append(c.entries, ref)
}

func (c *podSlice) find(ordinal uint32) int {
	return slices.IndexFunc(c.entries, func(e entryRef) bool { return e.ordinal == ordinal })
}

func (w *OrderedWalk) evict(hash uint64, ordinal uint32) {
	keys, found := w.engineKeys.Get(hash)
	if !found {
		return
	}
	empty := true
	for _, key := range keys {
		empty = w.take(key, ordinal) && empty
	}
	if empty {
		w.engineKeys.Remove(hash)
	}
}

// take removes an entry from a key, and the key with the last one. It reports whether the key is gone.
func (w *OrderedWalk) take(key uint64, ordinal uint32) bool {
	c := w.peek(key)
	if c == nil {
		return true
	}
	c.mu.Lock()
	if at := c.find(ordinal); at >= 0 {
		c.entries = slices.Delete(c.entries, at, at+1)
	}
	empty := len(c.entries) == 0
	c.mu.Unlock()
	if empty {
		w.mu.Lock()
		w.data.Remove(key)
		w.mu.Unlock()
	}
	return empty
}

func (w *OrderedWalk) peek(key uint64) *podSlice {
	w.mu.RLock()
	defer w.mu.RUnlock()
	c, _ := w.data.Peek(key)
	return c
}

// Drop looks at every key.
func (w *OrderedWalk) Drop(engine string) {
	ordinal := w.ordinal(engine)
	w.add.Lock()
	defer w.add.Unlock()
	w.mu.RLock()
	keys := w.data.Keys()
	w.mu.RUnlock()
	for _, key := range keys {
		w.take(key, ordinal)
	}
}
