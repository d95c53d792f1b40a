package tokens

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/zeebo/xxh3"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// digest stands for all that a prompt's tokens depend on. It is seeded, so that nobody can make two prompts collide.
type digest = xxh3.Uint128

func digestOf(seed uint64, r *scorerv1.ScoreRequest, p *prompt) digest {
	h := xxh3.NewSeed(seed)
	number := func(n int) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		_, _ = h.Write(b[:]) // a hash does not fail
	}
	name := func(s string) {
		number(len(s))
		_, _ = h.WriteString(s)
	}
	value := func(b []byte) {
		number(len(b))
		_, _ = h.Write(b)
	}
	name(r.GetPool())
	name(r.GetModel())
	number(int(r.GetKind()))
	value(p.text)
	for _, span := range p.rest {
		name(span.GetName())
		value(span.GetValue())
	}
	return h.Sum128()
}

// entryOverhead is what an entry weighs beside its tokens: key, list element, map slot.
const entryOverhead = 160

// cache keeps the token ids of recent prompts, at most max bytes of them, the least recently used dropped first.
// All methods may be called from any goroutine. The ids are shared: nobody may write to them.
type cache struct {
	max int64

	mu    sync.Mutex
	bytes int64
	lru   *simplelru.LRU[digest, []uint32]
}

func newCache(limit int64) *cache {
	c := &cache{max: limit}
	// The error is for a size below 1; the count is without bound because the bytes have one.
	c.lru, _ = simplelru.NewLRU(math.MaxInt, func(_ digest, ids []uint32) { c.bytes -= weigh(ids) })
	return c
}

func weigh(ids []uint32) int64 { return 4*int64(cap(ids)) + entryOverhead }

func (c *cache) get(d digest) ([]uint32, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Get(d)
}

func (c *cache) put(d digest, ids []uint32) {
	if weigh(ids) > c.max {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(d)
	c.lru.Add(d, ids)
	for c.bytes += weigh(ids); c.bytes > c.max; {
		c.lru.RemoveOldest()
	}
}

func (c *cache) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
