package index

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/warmpath/warmpath/libs/prefix"
)

// store is what the writer shares with Match. Only the writer changes it; readers take no locks.
type store struct {
	owned uint64

	pools   atomic.Pointer[map[string]*pool] // copied on write
	life    atomic.Uint64                    // how often a part was built anew
	covered atomic.Uint64                    // owned buckets whose state is that of the log
	ready   atomic.Bool
	begun   atomic.Uint64 // stream sequence that the writer began to apply
	applied atomic.Uint64 // and the one that it has applied
}

// pool is the index of one pool.
type pool struct {
	x       *prefix.Index
	engines sync.Map // engine id -> *seat
}

// seat is what Match needs of an engine beside its blocks.
type seat struct {
	bucket int
	lagUS  atomic.Int64 // received by ingest -> visible, of the newest delta
}

func newStore(owned uint64) *store {
	s := &store{owned: owned}
	s.clear()
	return s
}

// clear drops everything; answers begun before are void.
func (s *store) clear() {
	s.life.Add(1)
	s.pools.Store(&map[string]*pool{})
	s.covered.Store(s.owned)
	s.begun.Store(0)
	s.applied.Store(0)
}

func (s *store) pool(id string) *pool { return (*s.pools.Load())[id] }

func (s *store) addPool(id string) *pool {
	pools := maps.Clone(*s.pools.Load())
	p := &pool{x: prefix.NewIndex()}
	pools[id] = p
	s.pools.Store(&pools)
	return p
}
