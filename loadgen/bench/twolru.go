package bench

import (
	"fmt"
	"strings"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/warmpath/warmpath/libs/prefix"
)

// indexSize is the bound on keys; no work here reaches it.
const indexSize = 1e8

// podEntry is what is remembered of an engine at a key, as large as the original's.
type podEntry struct {
	pod, tier string
	_         bool // speculative
	_         int  // cache group
}

// podLRU is the engines of one key.
type podLRU struct {
	mu   sync.Mutex
	pods *lru.Cache[podEntry, struct{}]
}

// TwoLevelLRU stands in for the in-memory index of llm-d-kv-cache: an LRU of keys, in it an LRU of pod entries for each
// key, beside it an LRU from engine hashes to keys. Every read promotes its keys, each under the exclusive lock of the
// LRU; a key that is not found does not end a lookup; the answer is a map of slices, which a scorer intersects as sets
// of names. Exact as long as no key has more engines than it remembers.
type TwoLevelLRU struct {
	podsPerKey int
	trace      bool

	mu         sync.Mutex
	data       *lru.Cache[uint64, *podLRU]
	engineKeys *lru.Cache[uint64, []uint64]
}

// NewTwoLevelLRU returns one that remembers so many engines a key. With trace, Lookup makes the text of its log line
// although nobody reads it.
func NewTwoLevelLRU(podsPerKey int, trace bool) *TwoLevelLRU {
	return &TwoLevelLRU{
		podsPerKey: podsPerKey, trace: trace,
		data:       newLRU[*podLRU](indexSize),
		engineKeys: newLRU[[]uint64](indexSize),
	}
}

func newLRU[V any](size int) *lru.Cache[uint64, V] {
	c, err := lru.New[uint64, V](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// Apply adds the engine under the run's keys, or takes it from those that its hashes stand for.
func (l *TwoLevelLRU) Apply(s *Step) {
	entry := podEntry{pod: s.Engine, tier: "gpu"}
	if s.Run.Copy == prefix.Removed {
		for _, hash := range s.Run.Hashes {
			l.evict(hash, entry)
		}
		return
	}
	for i, hash := range s.Run.Hashes {
		l.engineKeys.Add(hash, []uint64{s.Run.Keys[i]})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range s.Run.Keys {
		c, found := l.data.Get(key)
		if !found {
			pods, err := lru.New[podEntry, struct{}](l.podsPerKey)
			if err != nil {
				panic(err)
			}
			c = &podLRU{pods: pods}
			l.data.Add(key, c)
		}
		c.mu.Lock()
		c.pods.Add(entry, struct{}{})
		c.mu.Unlock()
	}
}

func (l *TwoLevelLRU) evict(hash uint64, entry podEntry) {
	keys, found := l.engineKeys.Get(hash)
	if !found {
		return
	}
	empty := true
	for _, key := range keys {
		empty = l.take(key, entry) && empty
	}
	if empty {
		l.mu.Lock()
		l.engineKeys.Remove(hash)
		l.mu.Unlock()
	}
}

// take removes an entry from a key, and the key with the last one. It reports whether the key is gone.
func (l *TwoLevelLRU) take(key uint64, entry podEntry) bool {
	c, found := l.data.Get(key)
	if !found {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods.Remove(entry)
	if c.pods.Len() > 0 {
		return false
	}
	l.data.Remove(key)
	return true
}

// Drop looks at every key.
func (l *TwoLevelLRU) Drop(engine string) {
	entry := podEntry{pod: engine, tier: "gpu"}
	for _, key := range l.data.Keys() {
		if c, found := l.data.Peek(key); found && c.pods.Contains(entry) {
			l.take(key, entry)
		}
	}
}

// Lookup returns the entries of every key of the chain that is known.
func (l *TwoLevelLRU) Lookup(keys []uint64) map[uint64][]podEntry {
	pods := make(map[uint64][]podEntry)
	for _, key := range keys {
		if c, found := l.data.Get(key); found {
			pods[key] = c.pods.Keys()
		}
	}
	if l.trace {
		_ = traceText(pods)
	}
	return pods
}

func traceText(pods map[uint64][]podEntry) string {
	var b strings.Builder
	for key, entries := range pods {
		texts := make([]string, 0, len(entries))
		for _, e := range entries {
			texts = append(texts, fmt.Sprintf("%s@%s", e.pod, e.tier))
		}
		fmt.Fprintf(&b, "%d: %v\n", key, texts)
	}
	return b.String()
}

// Match is Lookup and then the count of each engine's consecutive keys, in sets of names.
func (l *TwoLevelLRU) Match(keys []uint64, dst []prefix.Depth) []prefix.Depth {
	if len(keys) == 0 {
		return dst
	}
	pods := l.Lookup(keys)
	depths := map[string]int{}
	active := names(pods[keys[0]])
	for pod := range active {
		depths[pod] = 1
	}
	for _, key := range keys[1:] {
		if len(active) == 0 {
			break
		}
		here, both := names(pods[key]), map[string]struct{}{}
		for pod := range active {
			if _, holds := here[pod]; holds {
				both[pod] = struct{}{}
				depths[pod]++
			}
		}
		active = both
	}
	for pod, depth := range depths {
		dst = append(dst, prefix.Depth{Engine: pod, GPU: depth, Any: depth})
	}
	return dst
}

func names(entries []podEntry) map[string]struct{} {
	set := make(map[string]struct{}, len(entries))
	for _, e := range entries {
		set[e.pod] = struct{}{}
	}
	return set
}
