package enginesim

import "slices"

// A prompt that is computed on one engine and decoded on another:
//
//	prefill engine   a Request with Pin runs to its end; its blocks stay in use, so that nothing evicts them
//	decode engine    a Request with Remote gets its blocks as soon as they are free, and waits: StepResult.Pulls
//	the driver       moves the bytes, in whatever time it takes, and then calls Pulled there and Unpin here
//	decode engine    the request joins the next step, which computes the last prompt token only
//
// Either side may be aborted at any point; who aborts the decode leg unpins the prefill leg too.

// Pull is a prompt that an engine waits for. It has its blocks; nothing else in the engine waits for it.
type Pull struct {
	Request *Request
	Tokens  int // whose KV is to be moved: the prompt less what is cached here, at least 1
}

// pull gives the sequence at the head of the queue its blocks and lets it wait aside until Pulled. It returns false
// where there are not enough free ones.
func (c *Core) pull(s *sequence) bool {
	idle := c.find(s)
	lacks := c.lacks(s, s.length-s.done)
	if lacks+idle > c.pool.free {
		s.rewind()
		return false
	}
	for _, id := range s.blocks {
		c.pool.touch(id)
	}
	for range lacks {
		s.blocks = append(s.blocks, c.pool.take())
	}
	c.removed()
	c.pulls = append(c.pulls, Pull{Request: s.req, Tokens: s.length - s.done})
	c.stats.Hits += int64(s.done)
	c.stats.Queries += int64(s.length)
	s.done = s.length - 1
	s.seen, s.hit, s.pulling = true, s.done, true
	c.waiting = c.waiting[1:]
	c.pulling++
	return true
}

// Pulled says that the KV of a Pull is here: its request joins the next step, ahead of all that have no blocks yet. It
// returns false for a request that does not wait for any.
func (c *Core) Pulled(id string) bool {
	s := c.ids[id]
	if s == nil || !s.pulling {
		return false
	}
	s.pulling, s.pulled = false, true
	c.pulling--
	at := slices.IndexFunc(c.waiting, func(w *sequence) bool { return !w.pulled })
	if at < 0 {
		at = len(c.waiting)
	}
	c.waiting = slices.Insert(c.waiting, at, s)
	return true
}

// Unpin frees the blocks of a finished request with Pin; they stay cached. It returns false for an id that has none.
func (c *Core) Unpin(id string) bool {
	blocks, ok := c.pinned[id]
	if ok {
		c.pool.release(blocks)
		delete(c.pinned, id)
		c.stats.Pinned -= len(blocks)
	}
	return ok
}

// pin keeps the blocks of a sequence that ends in use, under its id.
func (c *Core) pin(s *sequence) {
	if c.pinned == nil {
		c.pinned = map[string][]int32{}
	}
	c.pinned[s.req.ID] = s.blocks
	c.stats.Pinned += len(s.blocks)
	s.blocks = nil
}
