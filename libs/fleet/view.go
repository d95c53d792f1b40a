package fleet

import (
	"cmp"
	"slices"
)

// View is the fleet at one moment. It is never changed once it is handed out.
type View struct {
	Engines  map[string]Engine    // by engine id
	Pools    map[string]Pool      // by pool id
	Members  []Member             // those that are alive, sorted by service and instance
	Draining map[string]bool      // engine ids that must get no new requests
	Drains   map[string]DrainMark // these and why, also of engines that are no more: by engine id

	names map[string]name // nil in a View that was not made by a Watcher
}

// DrainMark is one entry of KV drain.
type DrainMark struct {
	Pool string
	DrainRecord
}

// name is what a model id stands for.
type name struct{ pool, lora string }

// PoolOf finds the pool that serves a model. lora is the adapter's name where model is one, else empty. A pool's own
// model is known even while it has no engine; other names only as long as an engine's record tells them.
func (v *View) PoolOf(model string) (pool Pool, lora string, ok bool) {
	names := v.names
	if names == nil {
		names = v.allNames()
	}
	n, ok := names[model]
	if !ok {
		return Pool{}, "", false
	}
	return v.Pools[n.pool], n.lora, true
}

// InPool returns the engines of a pool, sorted by id. Cost: all engines.
func (v *View) InPool(pool string) []Engine {
	var in []Engine
	for _, e := range v.Engines {
		if e.Pool == pool {
			in = append(in, e)
		}
	}
	slices.SortFunc(in, func(a, b Engine) int { return cmp.Compare(a.ID, b.ID) })
	return in
}

// allNames resolves every known model id. A pool's own model wins over a further name, that over an adapter, and
// among equals the pool whose id comes first.
func (v *View) allNames() map[string]name {
	names := make(map[string]name)
	add := func(model string, n name) {
		if _, known := v.Pools[n.pool]; !known || model == "" {
			return
		}
		if old, ok := names[model]; !ok || n.rank(v, model) < old.rank(v, model) ||
			n.rank(v, model) == old.rank(v, model) && n.pool < old.pool {
			names[model] = n
		}
	}
	for _, p := range v.Pools {
		add(p.Model, name{pool: p.ID})
	}
	for _, e := range v.Engines {
		for _, m := range e.Models {
			n := name{pool: e.Pool}
			if m.Parent != "" {
				n.lora = m.ID
			}
			add(m.ID, n)
		}
	}
	return names
}

func (n name) rank(v *View, model string) int {
	switch {
	case n.lora != "":
		return 2
	case v.Pools[n.pool].Model != model:
		return 1
	}
	return 0
}
