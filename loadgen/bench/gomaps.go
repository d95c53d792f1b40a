package bench

import (
	"sync"

	"github.com/warmpath/warmpath/libs/prefix"
)

// GoMaps is what one writes first: the set of engines of each key, behind a lock. Exact.
type GoMaps struct {
	mu      sync.RWMutex
	holders map[uint64]map[string]struct{}
}

// NewGoMaps returns one that is empty.
func NewGoMaps() *GoMaps { return &GoMaps{holders: map[uint64]map[string]struct{}{}} }

// Apply adds or removes the engine at each key.
func (g *GoMaps) Apply(s *Step) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, key := range s.Run.Keys {
		if s.Run.Copy == prefix.Removed {
			g.remove(key, s.Engine)
			continue
		}
		set := g.holders[key]
		if set == nil {
			set = map[string]struct{}{}
			g.holders[key] = set
		}
		set[s.Engine] = struct{}{}
	}
}

func (g *GoMaps) remove(key uint64, engine string) {
	set := g.holders[key]
	delete(set, engine)
	if len(set) == 0 {
		delete(g.holders, key)
	}
}

// Drop looks at every key.
func (g *GoMaps) Drop(engine string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key := range g.holders {
		g.remove(key, engine)
	}
}

// Match walks the chain. The engines that hold all keys so far are kept in front of those that have ended.
func (g *GoMaps) Match(keys []uint64, dst []prefix.Depth) []prefix.Depth {
	if len(keys) == 0 {
		return dst
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	first := len(dst)
	for engine := range g.holders[keys[0]] {
		dst = append(dst, prefix.Depth{Engine: engine, GPU: len(keys), Any: len(keys)})
	}
	alive := dst[first:]
	for depth := 1; depth < len(keys) && len(alive) > 0; depth++ {
		set := g.holders[keys[depth]]
		for i := 0; i < len(alive); {
			if _, holds := set[alive[i].Engine]; holds {
				i++
				continue
			}
			last := len(alive) - 1
			alive[i].GPU, alive[i].Any = depth, depth
			alive[i], alive[last] = alive[last], alive[i]
			alive = alive[:last]
		}
	}
	return dst
}
