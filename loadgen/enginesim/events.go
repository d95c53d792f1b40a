package enginesim

import "github.com/warmpath/warmpath/libs/kvevent"

// What every event of the simulator says of its block: full attention in the one KV cache group, in GPU memory.
const (
	medium   = "GPU"
	specKind = "full_attention"
)

// stored announces the blocks first to last-1 of s as one event.
func (c *Core) stored(s *sequence, first, last int) {
	e := kvevent.Event{
		Kind:      kvevent.Stored,
		Hashes:    s.hashes[first:last:last],
		Tokens:    c.tokens(s, first, last),
		BlockSize: c.o.BlockSize,
		Medium:    medium,
		Extra:     c.extras(s, first, last),
		HasExtra:  true,
		HasGroup:  true,
		SpecKind:  specKind,
	}
	if s.req.LoRA != "" {
		e.LoRAName, e.LoRAID, e.HasLoRAID = s.req.LoRA, s.req.LoRAID, true
	}
	if first > 0 {
		e.Parent, e.HasParent = s.hashes[first-1], true
	}
	c.events = append(c.events, e)
}

// extras returns the extra keys of the blocks, one entry a block. Plain sequences share one slice of nils.
func (c *Core) extras(s *sequence, first, last int) [][]kvevent.ExtraKey {
	if n := last - first; s.plain {
		for len(c.plain) < n {
			c.plain = append(c.plain, nil)
		}
		return c.plain[:n:n]
	}
	extra := make([][]kvevent.ExtraKey, 0, last-first)
	for i := first; i < last; i++ {
		extra = append(extra, c.extra(s, i))
	}
	return extra
}

// removed announces each block that was evicted since the last call, as an event of its own.
func (c *Core) removed() {
	for _, hash := range c.pool.evicted {
		c.gone = append(c.gone, hash)
		n := len(c.gone)
		c.events = append(c.events, kvevent.Event{
			Kind: kvevent.Removed, Hashes: c.gone[n-1 : n : n], Medium: medium, HasGroup: true,
		})
	}
	c.pool.evicted = c.pool.evicted[:0]
}
